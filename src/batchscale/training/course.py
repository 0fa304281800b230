"""A run under way: its parts, how far it is, what it has summed up; all that is due after a step acts on this."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from batchscale.minibatch import StepPlan
from batchscale.recipe import Recipe, identity
from batchscale.recipe.measuring import MeasureEntry
from batchscale.records import RunFolder
from batchscale.records.run import MEASURES
from batchscale.training.answer import StepValues
from batchscale.training.checkpoint import Checkpoint
from batchscale.training.measuring import CurvatureAsked, Measuring
from batchscale.training.noise_scale import NOISE, noise_of
from batchscale.training.parts import Parts
from batchscale.training.progress import Progress
from batchscale.training.riders import COUNTS, LOSS, NEWS, STOP, counts_of
from batchscale.training.saving import Saver
from batchscale.training.skipped import SkippedFiles
from batchscale.training.totals import Totals


@dataclass
class Course:
    """A run under way, on every process alike; rank 0 alone writes.

    Attributes:
        parts: of the run.
        totals: sums so far.
        steps_done: steps of the run so far.
        fingerprint: written into checkpoints.
        folder: where rank 0 writes; None to write nothing.
        skipped: the files passed over so far.
        progress: for the user.
        first_step: steps done before this attempt.
        saved_at: when the last checkpoint was begun, on the monotonic clock.
        saver: writes checkpoints; None where nothing is written.
    """

    parts: Parts
    totals: Totals
    steps_done: int
    fingerprint: dict[str, str]
    folder: RunFolder | None
    skipped: SkippedFiles
    progress: Progress
    first_step: int = field(init=False)
    saved_at: float = field(init=False)
    saver: Saver | None = field(init=False)
    _begun: float = field(init=False)
    _wall_before: float = field(init=False)
    _saved_step: int = field(init=False, default=-1)
    _epoch_end: tuple[int, bool] = field(init=False, default=(-1, False))

    def __post_init__(self) -> None:
        self.first_step, self._wall_before = self.steps_done, self.totals.wall_seconds
        self._begun = self.saved_at = time.monotonic()
        self.saver = None if self.folder is None else Saver(self.folder.path, self.parts.world.queue)

    @property
    def recipe(self) -> Recipe:
        """Of the run."""
        return self.parts.recipe

    @property
    def plan(self) -> StepPlan:
        """The steps of the run."""
        return self.parts.step.plan

    @property
    def epochs(self) -> float:
        """Epochs so far."""
        return float(self.plan.epoch_at(self.steps_done))

    @property
    def at_last_step(self) -> bool:
        """Whether all steps of the plan are done."""
        return self.steps_done == self.plan.total_steps

    @property
    def ends_epoch(self) -> bool:
        """Whether the last step was an epoch's last."""
        return self._ends_epoch(self.steps_done - 1)

    def _ends_epoch(self, step: int) -> bool:
        """Asked several times a step, and counted in fractions: worked out once."""
        if self._epoch_end[0] != step:
            self._epoch_end = (step, self.plan.ends_epoch(step))
        return self._epoch_end[1]

    @property
    def reached_goal(self) -> bool:
        """Whether the last evaluation met execution.stop_below or stop_at: of the state, so a resume knows it."""
        goal, totals = self.recipe.execution.stop_below, self.totals
        stop_at = self.recipe.execution.stop_at
        if stop_at is not None and stop_at.met_by(totals.last_scores.get(stop_at.score, math.nan)):
            return True
        loss = totals.losses[-1] if totals.losses else math.nan
        bounds = ((goal.error_percent, totals.last_scores.get("error", math.nan)), (goal.loss, loss))
        return any(bound is not None and value < bound for bound, value in bounds)

    @property
    def per_worker(self) -> int:
        """n of the last step (before any, of the first)."""
        return self.plan.minibatch_at(max(self.steps_done - 1, 0)).per_worker

    def add_step(self, step: int, values: StepValues, seconds: float) -> None:
        """Count a step into the totals."""
        self.parts.world.patience.started()
        numbers = dict(values.numbers)
        (loss,), counts = numbers.pop(LOSS), counts_of(numbers.pop(COUNTS), self.parts.step.task.training_counts)
        del numbers[STOP], numbers[NEWS]  # requests, not measurements
        if self.parts.growing is not None:
            self.parts.growing.note(step, values.numbers)
        examples = self.plan.minibatch_at(step).images
        noise = noise_of(numbers.pop(NOISE, ()), examples, self.plan.training_images)
        self.totals.add_step(loss, counts, numbers, examples, seconds, self._ends_epoch(step))
        if noise is not None:
            self.totals.add_noise(noise)

    def weights(self) -> dict[str, dict[str, torch.Tensor]]:
        """What the run leaves: all processes call it together."""
        weights = self.parts.weights(self.per_worker)
        self.count_recompute_seconds()
        return weights

    def count_recompute_seconds(self) -> float:
        """Seconds of statistics recomputed since the last call, counted."""
        recomputation = self.parts.recomputation
        seconds = recomputation.take_seconds() if recomputation else 0.0
        self.totals.recompute_seconds += seconds
        return seconds

    def wall_seconds(self) -> float:
        """Since the run began, earlier attempts included."""
        return self._wall_before + time.monotonic() - self._begun

    @contextlib.contextmanager
    def kept(self, count_all: Callable[[], bool] = lambda: True) -> Iterator[None]:
        """Around what stands between two updates: where it fails, the steps done so far are kept.

        Args:
            count_all: counts the steps yet unread; whether none of them diverged.
        """
        try:
            yield
        except Exception:
            with contextlib.suppress(Exception):  # the error at hand is the one to tell
                if count_all():
                    self.save()
            raise

    def append(self, name: str, line: dict[str, Any]) -> None:
        """One line more in metrics.jsonl, evaluations.jsonl or a measure's own file, by rank 0."""
        if self.folder is not None:
            self.folder.append(name, line)

    def measure(self, entry: MeasureEntry) -> dict[str, Any]:
        """Measure the state, write the line, tell the user; all processes call it together. Returns the line.

        A measure that has no place in this run says why in its line, and ends nothing.
        """
        start = time.perf_counter()
        self._wait()  # a measure reads checkpoints: those of the steps before, whenever they get written
        with self._measuring(entry.name) as measuring:
            content = measuring(entry, self.steps_done)
        line = {
            "step": self.steps_done,
            "epoch": round(self.epochs, 6),
            "measure": entry.name,
            "options": entry.options,
            "seconds": round(time.perf_counter() - start, 3),
            **content,
        }
        self.append(MEASURES, line)
        told = content.get("answer") or f"refused: {content['refused']}"
        self.progress.say(f"epoch {self.epochs:.4g}: {entry.name}: {told}")
        return line

    def curvature(self, asked: CurvatureAsked) -> tuple[float, ...]:
        """(lambda, its residual, products) of the top eigenvalue now; all processes call it together."""
        with self._measuring("the top eigenvalue of the Hessian") as measuring:
            return measuring.curvature(asked, self.steps_done)

    @contextlib.contextmanager
    def _measuring(self, what: str) -> Iterator[Measuring]:
        """What measures, with the patience that it needs."""
        if self.parts.measuring is None:
            raise RuntimeError(f"measuring {what}: the parts of this run have nothing that measures")
        with self.parts.world.patience.longer(), self.progress.during(f"measuring {what}"):
            yield self.parts.measuring

    def save(self) -> None:
        """Begin a checkpoint, unless there is one of this step; it is written beside the steps that follow.

        Raises:
            FolderError: the one before could not be written.
        """
        self.saved_at = time.monotonic()
        self.totals.wall_seconds = self.wall_seconds()
        if self.saver is None or self._saved_step == self.steps_done:
            return
        with self.parts.world.patience.busy():
            self._save(self.saver)

    @contextlib.contextmanager
    def saved(self) -> Iterator[None]:
        """When it is left, all checkpoints begun in it are on the disk.

        Raises:
            FolderError: the last one could not be written; an error at hand is told in its place.
        """
        try:
            yield
        except BaseException:
            with contextlib.suppress(Exception):
                self._wait()
            raise
        self._wait()

    def _wait(self) -> None:
        if self.saver is not None:
            with self.parts.world.patience.busy():
                self.saver.wait()

    def _save(self, saver: Saver) -> None:
        self._saved_step = self.steps_done
        self.skipped.write()
        if self.parts.growing is not None:
            self.totals.growth = self.parts.growing.state()
        content = Checkpoint(
            self.steps_done, self.parts.state(), self.totals.as_json(), identity(self.recipe), self.fingerprint
        )
        saver.begin(content, self._stays)

    def _stays(self, step: int) -> bool:
        """Whether the checkpoint of a step is one of execution.keep_checkpoints."""
        return step in self.parts.kept_steps
