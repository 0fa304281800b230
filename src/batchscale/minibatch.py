"""k x n arithmetic: a minibatch has k workers of n images each, and W processes host the workers.

Source: Goyal et al. 2017, section 2 (k workers, n images each, minibatch size kn) and section 3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from batchscale.errors import RecipeError


@dataclass(frozen=True)
class Minibatch:
    """The minibatch of one step: k workers of n images.

    kn = workers * per_worker

    Args:
        workers: k, logical workers (at least 1).
        per_worker: n, images each worker sees in a step (at least 1).

    Raises:
        RecipeError: k or n is below 1.

    Source: Goyal et al. 2017, section 2.
    """

    workers: int
    per_worker: int

    def __post_init__(self) -> None:
        for name in ("workers", "per_worker"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise RecipeError(
                    f"minibatch.{name}={value!r}: must be a whole number of at least 1; "
                    f"write for example minibatch.{name}=8"
                )

    @property
    def images(self) -> int:
        """kn, the images of one update."""
        return self.workers * self.per_worker

    def _way_out(self, training_images: int) -> str:
        if self.per_worker > training_images:
            return f"lower minibatch.per_worker to at most {training_images}"
        return f"lower minibatch.workers to at most {training_images // self.per_worker}"

    def check_fits(self, training_images: int) -> None:
        """Raise unless kn <= N: a minibatch never holds more images than the training set.

        Raises:
            RecipeError: kn is larger than the training set.
        """
        if self.images > training_images:
            raise RecipeError(
                f"minibatch.workers={self.workers} x minibatch.per_worker={self.per_worker} = {self.images} images: "
                f"must not exceed the {training_images} training images; "
                f"{self._way_out(training_images)}"
            )


def place_workers(workers: int, processes: int, span: int = 1) -> list[range]:
    """Which of the k workers each of the W processes hosts: contiguous, as even as possible, in whole groups.

    Process r hosts g ceil((k/g - r) / W) workers: 8 on 3 gives 3, 3, 2.

    Args:
        workers: k, logical workers.
        processes: W, operating-system processes.
        span: g, workers that share their batch-norm statistics, so that no forward pass communicates; divides k.

    Returns:
        One range of worker numbers a process, in rank order.

    Raises:
        RecipeError: W is below 1, or larger than k / g.
    """
    if processes < 1:
        raise RecipeError(f"--processes={processes}: must be at least 1; write --processes 1")
    groups = workers // span
    if span > 1 and processes > groups:
        raise RecipeError(
            f"--processes={processes}: must not exceed minibatch.workers / batch_norm.span = {workers} / {span} = "
            f"{groups} (workers that are normalised together live on one process); use --processes {groups}"
        )
    if processes > workers:
        raise RecipeError(
            f"--processes={processes}: must not exceed minibatch.workers={workers} (a process without a worker "
            f"has nothing to do); use --processes {workers} or raise minibatch.workers"
        )
    small, larger = divmod(groups, processes)
    first = 0
    placed = []
    for rank in range(processes):
        count = (small + (rank < larger)) * span
        placed.append(range(first, first + count))
        first += count
    return placed


@dataclass(frozen=True)
class StepPlan:
    """The steps of a run: a stream of images cut into minibatches of kn.

    Step t holds the stream positions [t kn, (t+1) kn). With ``partial="carry"`` the stream runs
    over all N images an epoch, so the last partial minibatch of an epoch is filled from the next
    epoch's shuffle; with ``"drop"`` it runs over the first floor(N / kn) kn of each shuffle.

    Args:
        minibatch_images: kn.
        training_images: N.
        epochs: passes over the data (need not be whole).
        partial: "carry" or "drop".
    """

    minibatch_images: int
    training_images: int
    epochs: float
    partial: str = "carry"

    @property
    def epoch_images(self) -> int:
        """Images of one epoch that are trained on."""
        if self.partial == "drop":
            return self.training_images // self.minibatch_images * self.minibatch_images
        return self.training_images

    @property
    def steps_per_epoch(self) -> Fraction:
        """N / kn, exactly (a fraction when the last minibatch carries over)."""
        return Fraction(self.epoch_images, self.minibatch_images)

    @property
    def total_steps(self) -> int:
        """ceil(epochs N / kn): no minibatch size sees fewer images than another."""
        return math.ceil(Fraction(str(self.epochs)) * self.steps_per_epoch)

    def steps(self, epochs: float) -> Fraction:
        """A duration in epochs, converted to steps, unrounded."""
        return Fraction(str(epochs)) * self.steps_per_epoch

    def epochs_done(self, steps: int) -> int:
        """Whole epochs finished after this many steps."""
        return int(steps / self.steps_per_epoch)

    def ends_epoch(self, step: int) -> bool:
        """Whether an epoch's last image is in this step."""
        return self.epochs_done(step + 1) > self.epochs_done(step)
