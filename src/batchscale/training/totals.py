"""What a run sums up on its way, carried from checkpoint to checkpoint."""

from __future__ import annotations

import math
import statistics
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Totals:
    """Sums of a run so far.

    Attributes:
        images: trained on.
        step_seconds: time of training steps alone.
        wall_seconds: time of everything, earlier attempts included, up to the checkpoint.
        evaluation_seconds: of evaluations, without recompute_seconds.
        recompute_seconds: of batch norm's statistics that were recomputed for evaluations.
        epoch_loss, epoch_images: loss summed over the images of the epoch at hand, as far as it was finite.
        line_loss, line_wrong, line_images, line_steps, line_seconds: since the last line of metrics.jsonl; loss,
            images told wrong and images of the steps whose loss was finite, steps and seconds of all.
        line_lost_steps: those of line_steps whose loss was not finite.
        train_loss: mean of the last whole epoch.
        errors, losses: of every evaluation so far.
        diverged_at_step: the step whose loss was not finite.
        skipped_steps: whose gradient overflowed, so that the loss scale was lowered instead of an update.
        loss_scales: [first step, scale] of every loss scale used.
        evaluation_is_due: the evaluation after the last step was begun and not ended.
    """

    images: int = 0
    step_seconds: float = 0.0
    wall_seconds: float = 0.0
    evaluation_seconds: float = 0.0
    recompute_seconds: float = 0.0
    epoch_loss: float = 0.0
    epoch_images: int = 0
    line_loss: float = 0.0
    line_wrong: int = 0
    line_images: int = 0
    line_steps: int = 0
    line_lost_steps: int = 0
    line_seconds: float = 0.0
    train_loss: float | None = None
    errors: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    diverged_at_step: int | None = None
    skipped_steps: int = 0
    loss_scales: list[list[float]] = field(default_factory=list)
    evaluation_is_due: bool = False

    def note_scale(self, step: int, scale: float) -> None:
        """Remember a loss scale from its first step on."""
        if not self.loss_scales or self.loss_scales[-1][1] != scale:
            self.loss_scales.append([step, scale])

    def add_step(self, loss: float, wrong: int, images: int, seconds: float, ends_epoch: bool) -> None:
        """Count one step; a loss that is not finite (fp16: the step was skipped) is in no mean, nor are its images."""
        self.images += images
        self.step_seconds += seconds
        self.line_steps += 1
        self.line_seconds += seconds
        if not math.isfinite(loss):
            self.line_lost_steps += 1
        else:
            self.line_loss += loss
            self.line_wrong += wrong
            self.line_images += images
            self.epoch_loss += loss * images
            self.epoch_images += images
        if ends_epoch:
            self.train_loss = self._epoch_mean()
            self.epoch_loss, self.epoch_images = 0.0, 0

    def take_line(self) -> tuple[float | None, float | None, int, float]:
        """(mean loss, percent of images wrong, steps, seconds) since the last line, set back to zero."""
        counted = self.line_steps - self.line_lost_steps
        loss = self.line_loss / counted if counted else None
        error = 100 * self.line_wrong / self.line_images if counted else None
        line = loss, error, self.line_steps, self.line_seconds
        self.line_loss, self.line_seconds = 0.0, 0.0
        self.line_wrong = self.line_images = self.line_steps = self.line_lost_steps = 0
        return line

    def last_epoch_loss(self) -> float | None:
        """Mean loss of the last whole epoch, or of the steps so far in a run shorter than one."""
        return self._epoch_mean() if self.train_loss is None else self.train_loss

    def _epoch_mean(self) -> float | None:
        return self.epoch_loss / self.epoch_images if self.epoch_images else None

    def errors_summary(self) -> dict[str, float | None]:
        """Final error, median of the last five, final loss."""
        return {
            "test_error_percent": self.errors[-1] if self.errors else None,
            "test_error_median_last_5": statistics.median(self.errors[-5:]) if self.errors else None,
            "test_loss": self.losses[-1] if self.losses else None,
        }

    def as_json(self) -> dict[str, Any]:
        """For a checkpoint's manifest."""
        return asdict(self)
