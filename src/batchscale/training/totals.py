"""What a run sums up on its way, carried from checkpoint to checkpoint."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import zip_longest
from typing import Any, Self

from batchscale.noise_scale import NoiseBlocks, StepNoise


@dataclass(frozen=True)
class LineMeans:
    """Since the last line: mean loss (None where no step's was finite), the task's counts over so many examples, mean
    numbers of other riders, steps, seconds."""

    loss: float | None
    counts: list[int]
    examples: int
    values: dict[str, Any]
    steps: int
    seconds: float


@dataclass
class Totals:
    """Sums of a run so far.

    Attributes:
        images: examples trained on.
        step_seconds: time of training steps alone.
        wall_seconds: time of everything, earlier attempts included, up to the checkpoint.
        evaluation_seconds: of evaluations, without recompute_seconds.
        recompute_seconds: of batch norm's statistics that were recomputed for evaluations.
        epoch_loss, epoch_images: loss summed over the examples of the epoch at hand, as far as it was finite.
        line_loss, line_counts, line_values, line_images, line_steps, line_seconds: since the last line of
            metrics.jsonl; loss, the task's counts, other riders' numbers and examples of the steps whose loss was
            finite, steps and seconds of all.
        line_lost_steps: those of line_steps whose loss was not finite.
        train_loss: mean of the last whole epoch.
        scores, losses: the task's score and the loss of every evaluation so far.
        last_scores: all scores of the last evaluation by name.
        diverged_at_step: the step whose loss was not finite.
        skipped_steps: whose gradient overflowed, so that the loss scale was lowered instead of an update.
        loss_scales: [first step, scale] of every loss scale used.
        growth: decisions about the minibatch, and what the next one will go by, as of the checkpoint.
        evaluation_is_due: the evaluation after the last step was begun and not ended.
        noise: of the gradients, in blocks of ten measured steps (``NoiseBlocks.sums``).
        line_noise: [measured steps, sum of |G|^2, sum of tr S] since the last line.
    """

    images: int = 0
    step_seconds: float = 0.0
    wall_seconds: float = 0.0
    evaluation_seconds: float = 0.0
    recompute_seconds: float = 0.0
    epoch_loss: float = 0.0
    epoch_images: int = 0
    line_loss: float = 0.0
    line_counts: list[int] = field(default_factory=list)
    line_values: dict[str, list[float]] = field(default_factory=dict)
    line_images: int = 0
    line_steps: int = 0
    line_lost_steps: int = 0
    line_seconds: float = 0.0
    train_loss: float | None = None
    scores: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    last_scores: dict[str, float] = field(default_factory=dict)
    diverged_at_step: int | None = None
    skipped_steps: int = 0
    loss_scales: list[list[float]] = field(default_factory=list)
    growth: dict[str, Any] = field(default_factory=dict)
    evaluation_is_due: bool = False
    noise: list[list[float]] = field(default_factory=list)
    line_noise: list[float] = field(default_factory=lambda: [0, 0.0, 0.0])

    def note_scale(self, step: int, scale: float) -> None:
        """Remember a loss scale from its first step on."""
        if not self.loss_scales or self.loss_scales[-1][1] != scale:
            self.loss_scales.append([step, scale])

    def add_step(
        self,
        loss: float,
        counts: Sequence[int],
        numbers: Mapping[str, Sequence[float]],
        examples: int,
        seconds: float,
        ends_epoch: bool,
    ) -> None:
        """Count one step; a loss that is not finite (fp16: the step was skipped) is in no mean, nor is its step."""
        self.images += examples
        self.step_seconds += seconds
        self.line_steps += 1
        self.line_seconds += seconds
        if not math.isfinite(loss):
            self.line_lost_steps += 1
        else:
            self.line_loss += loss
            self.line_counts = [a + b for a, b in zip_longest(self.line_counts, counts, fillvalue=0)]
            for name, values in numbers.items():
                sums = zip_longest(self.line_values.get(name, ()), values, fillvalue=0.0)
                self.line_values[name] = [a + b for a, b in sums]
            self.line_images += examples
            self.epoch_loss += loss * examples
            self.epoch_images += examples
        if ends_epoch:
            self.train_loss = self._epoch_mean()
            self.epoch_loss, self.epoch_images = 0.0, 0

    def add_noise(self, noise: StepNoise) -> None:
        """Count what a step's gradients said of the noise scale."""
        NoiseBlocks(self.noise).add(noise)
        self.line_noise = [total + one for total, one in zip(self.line_noise, (1, *noise), strict=True)]

    def _take_noise(self) -> dict[str, float | None]:
        """A line's entries of the noise scale, none where no step of it was measured."""
        (steps, gradient_squared, trace), self.line_noise = self.line_noise, [0, 0.0, 0.0]
        if not steps:
            return {}
        return {
            "noise_scale": trace / gradient_squared if gradient_squared > 0 else None,
            "gradient_squared": gradient_squared / steps,
            "trace": trace / steps,
            "noise_steps": steps,
        }

    def take_line(self) -> LineMeans:
        """What a line of metrics.jsonl is made of, set back to zero."""
        steps = self.line_steps - self.line_lost_steps
        values = {
            name: [total / steps for total in totals] if len(totals) > 1 else totals[0] / steps
            for name, totals in self.line_values.items()
            if totals  # a rider may have no numbers, and do all it does in ``update``
        } | self._take_noise()
        means = LineMeans(
            self.line_loss / steps if steps else None, self.line_counts, self.line_images, values, self.line_steps,
            self.line_seconds,
        )  # fmt: skip
        self.line_loss, self.line_seconds = 0.0, 0.0
        self.line_counts, self.line_values = [], {}
        self.line_images = self.line_steps = self.line_lost_steps = 0
        return means

    def add_evaluation(self, scores: Mapping[str, float], score: float, loss: float) -> None:
        """Count one evaluation; ``score`` is the one the task is judged by."""
        self.scores.append(score)
        self.losses.append(loss)
        self.last_scores = dict(scores)

    def last_epoch_loss(self) -> float | None:
        """Mean loss of the last whole epoch, or of the steps so far in a run shorter than one."""
        return self._epoch_mean() if self.train_loss is None else self.train_loss

    def _epoch_mean(self) -> float | None:
        return self.epoch_loss / self.epoch_images if self.epoch_images else None

    def summary(self, score_key: str) -> dict[str, float | None]:
        """Final score, median of the last five, final loss, under their names in result.json.

        Args:
            score_key: of the task's score, such as "error_percent".
        """
        name = score_key.removesuffix("_percent")
        return {
            f"test_{score_key}": self.scores[-1] if self.scores else None,
            f"test_{name}_median_last_5": statistics.median(self.scores[-5:]) if self.scores else None,
            "test_loss": self.losses[-1] if self.losses else None,
        }

    def as_json(self) -> dict[str, Any]:
        """For a checkpoint's manifest."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Of a checkpoint's manifest; the names that versions before tasks had are known."""
        totals = dict(content)
        if "errors" in totals:
            totals["scores"] = totals.pop("errors")
            totals["last_scores"] = {"error": totals["scores"][-1]} if totals["scores"] else {}
        if "line_wrong" in totals:
            totals["line_counts"] = [totals.pop("line_wrong")]
        return cls(**totals)
