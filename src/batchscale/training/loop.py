"""The loop: steps, and after each what is due: a line, an evaluation, a checkpoint, the end."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import torch

from batchscale.launch.signals import StopSignals
from batchscale.recipe import identity
from batchscale.records import RunFolder
from batchscale.training import checkpoint as checkpoints
from batchscale.training.evaluation import evaluate
from batchscale.training.parts import Parts
from batchscale.training.progress import Progress
from batchscale.training.skipped import SkippedFiles
from batchscale.training.step import StepResult
from batchscale.training.totals import Totals
from batchscale.worker.scale import LOSS_SCALE_UNIT


class Loop:
    """Trains from one step to the end, on every process alike; rank 0 alone writes.

    Args:
        parts: of the run.
        totals: sums so far.
        first_step: steps already done.
        fingerprint: written into checkpoints.
        folder: where rank 0 writes; None to write nothing.
        signals: requests to stop.
        quiet: no progress.

    Attributes:
        skipped: the files passed over so far.
    """

    def __init__(
        self,
        parts: Parts,
        totals: Totals,
        first_step: int,
        fingerprint: dict[str, str],
        folder: RunFolder | None,
        signals: StopSignals,
        quiet: bool,
    ) -> None:
        self._parts, self.totals, self.steps_done = parts, totals, first_step
        self._first_step = first_step
        self._fingerprint, self._folder, self._signals = fingerprint, folder, signals
        self._recipe = parts.recipe
        self.plan = parts.step.plan
        self.skipped = SkippedFiles(parts.dataset, parts.world, folder, parts.recipe.data.skip_bad)
        parts.step.stop_requested, parts.step.has_news = signals.requested, self.skipped.news
        self._progress = Progress(self.plan.total_steps, first_step, quiet or parts.world.rank > 0)
        self._begun, self._wall_before = time.monotonic(), totals.wall_seconds
        self._saved_at = time.monotonic()
        self._saved_step = -1

    def run(self) -> bool:
        """Train to the end; False where all processes were asked to stop before it."""
        feed = self._parts.make_feed()
        try:
            if self.totals.evaluation_is_due:
                self._evaluate()
                self._save()
            while self.steps_done < self.plan.total_steps and not self.stopped_below:
                start = time.perf_counter()
                with self._kept():
                    passes = feed.passes(self.steps_done)
                self._parts.step.seconds.data += time.perf_counter() - start
                self.totals.note_scale(self.steps_done, self._parts.step.loss_scale.value)
                result = self._parts.step(self.steps_done, passes)
                if result.news:
                    self.skipped.share()
                if not (result.finite or result.recovers):
                    self.totals.diverged_at_step = self.steps_done
                    self._progress.say(self._why_diverged(result.loss))
                    break
                self.totals.skipped_steps += result.recovers
                self._after_step(result, time.perf_counter() - start)
                if result.stop:
                    self._save()
                    return False
            self.skipped.share()
        finally:
            feed.close()
            self._progress.close()
        return True

    @contextlib.contextmanager
    def _kept(self) -> Iterator[None]:
        """Around what stands between two updates: where it fails, the steps done so far are kept."""
        try:
            yield
        except Exception:
            with contextlib.suppress(Exception):  # the error at hand is the one to tell
                self._save()
            raise

    def _why_diverged(self, loss: float) -> str:
        said = f"step {self.steps_done}: loss {loss}, or a gradient, not finite: diverged"
        if self._recipe.precision != "fp16":
            return said
        last = ", ".join(f"{scale:g} from step {step:g}" for step, scale in self.totals.loss_scales[-20:])
        return f"{said}: no smaller loss scale helped ({last}; {LOSS_SCALE_UNIT})"

    def _after_step(self, result: StepResult, seconds: float) -> None:
        step = self.steps_done
        self.steps_done += 1
        ends_epoch, at_end = self.plan.ends_epoch(step), self.steps_done == self.plan.total_steps
        self.totals.add_step(result.loss, result.wrong, self.plan.minibatch_at(step).images, seconds, ends_epoch)
        if self.steps_done % self._recipe.execution.log_steps == 0 or at_end:
            self._write_line()
        if at_end or self._evaluation_is_due(ends_epoch):
            self._evaluate()
            at_end = at_end or self.stopped_below
        if ends_epoch or at_end or time.monotonic() - self._saved_at >= self._recipe.execution.checkpoint_seconds:
            self._save()

    def _evaluation_is_due(self, ends_epoch: bool) -> bool:
        every = self._recipe.execution
        if every.evaluation_steps is not None:
            return self.steps_done % every.evaluation_steps == 0
        return ends_epoch and self.plan.epochs_done(self.steps_done) % every.evaluation_epochs == 0

    @property
    def stopped_below(self) -> bool:
        """Whether the last evaluation was below execution.stop_below: a property of the state, so a resume knows it."""
        goal, totals = self._recipe.execution.stop_below, self.totals
        bounds = ((goal.error_percent, totals.errors), (goal.loss, totals.losses))
        return any(bound is not None and bool(found) and found[-1] < bound for bound, found in bounds)

    def _write_line(self) -> None:
        lr = self._parts.step.schedule(self.steps_done - 1)
        loss, error, steps, seconds = self.totals.take_line()
        speed = (self.plan.images(self.steps_done) - self.plan.images(self.steps_done - steps)) / seconds
        phases = self._parts.step.seconds.take()
        if self._folder is not None:
            line: dict[str, Any] = {
                "step": self.steps_done,
                "epoch": round(float(self.plan.epoch_at(self.steps_done)), 6),
                "loss": loss,
                "train_error_percent": None if error is None else round(error, 4),
                "lr": lr,
                "minibatch": self.plan.minibatch_at(self.steps_done - 1).images,
                "images_per_second": round(speed, 2),
                "interval_steps": min(steps, self.steps_done - self._first_step),  # phases are of this attempt alone
                "phase_seconds": phases,
            }
            if self._recipe.precision == "fp16":
                line["loss_scale"] = self._parts.step.loss_scale.value
                line["skipped_steps"] = self.totals.skipped_steps
            if self._recipe.numerics.exact:
                line["weights_sha256"] = checkpoints.tensors_sha256(self._parts.model.state_dict())
            self._folder.append("metrics.jsonl", line)
        self._progress.step(self.steps_done, loss, lr, speed)

    def _evaluate(self) -> None:
        parts = self._parts
        self.totals.evaluation_is_due = True
        start = time.perf_counter()
        with self._kept(), parts.evaluated(self._per_worker):
            found = evaluate(
                parts.model,
                parts.dataset.test,
                parts.normalizer,
                parts.world,
                self._recipe.numerics.evaluation_chunk,
            )
        self.totals.evaluation_seconds += time.perf_counter() - start - self._recompute_seconds()
        self.totals.evaluation_is_due = False
        self.skipped.share()
        self.totals.errors.append(found.error_percent)
        self.totals.losses.append(found.loss)
        epoch = float(self.plan.epoch_at(self.steps_done))
        on = "holdout" if self._recipe.data.holdout else "test"
        if self._folder is not None:
            self._folder.append(
                "evaluations.jsonl",
                {
                    "step": self.steps_done,
                    "epoch": round(epoch, 6),
                    "error_percent": found.error_percent,
                    "loss": found.loss,
                    "wrong": found.wrong,
                    "images": found.images,
                    "on": on,
                },
            )
        self._progress.say(
            f"epoch {epoch:.4g}: {on} error {found.error_percent:.2f} % ({found.wrong} of {found.images}), "
            f"loss {found.loss:.4f}"
        )

    def _recompute_seconds(self) -> float:
        """Seconds of statistics recomputed since the last call, counted."""
        recomputation = self._parts.recomputation
        seconds = recomputation.take_seconds() if recomputation else 0.0
        self.totals.recompute_seconds += seconds
        return seconds

    @property
    def _per_worker(self) -> int:
        """n of the last step (before any, of the first)."""
        return self.plan.minibatch_at(max(self.steps_done - 1, 0)).per_worker

    def weights(self) -> dict[str, dict[str, torch.Tensor]]:
        """What the run leaves: all processes call it together."""
        weights = self._parts.weights(self._per_worker)
        self._recompute_seconds()
        return weights

    def wall_seconds(self) -> float:
        """Since the run began, earlier attempts included."""
        return self._wall_before + time.monotonic() - self._begun

    def _save(self) -> None:
        self._saved_at = time.monotonic()
        self.totals.wall_seconds = self.wall_seconds()
        if self._folder is None or self._saved_step == self.steps_done:
            return
        self._saved_step = self.steps_done
        self.skipped.write()
        checkpoints.save(
            self._folder.path,
            checkpoints.Checkpoint(
                self.steps_done,
                self._parts.state(),
                self.totals.as_json(),
                identity(self._recipe),
                self._fingerprint,
            ),
        )
