"""k x n arithmetic: a minibatch has k workers of n images each, a plan holds the steps.

Source: Goyal et al. 2017, section 2 (k workers, n images each, minibatch size kn) and section 3.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

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

    Examples:
        >>> batchscale.Minibatch(workers=8, per_worker=32).images
        256

    Source: Goyal et al. 2017, section 2.
    """

    workers: int
    per_worker: int

    def __post_init__(self) -> None:
        for name in ("workers", "per_worker"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:  # True is an int to Python
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


@dataclass(frozen=True)
class Change:
    """From this epoch on the minibatch is another one."""

    epoch: Fraction
    minibatch: Minibatch


@dataclass(frozen=True)
class Phase:
    """Steps that share one minibatch.

    Step t holds the stream positions [p + (t - t_0) kn, p + (t - t_0 + 1) kn), p = first_epoch * epoch_images;
    position x is place x mod epoch_images of the shuffle of epoch floor(x / epoch_images).

    Args:
        minibatch: k x n.
        first_step: t_0.
        first_epoch: epochs done before it, exactly.
        epoch_images: images of one epoch that are trained on.
    """

    minibatch: Minibatch
    first_step: int
    first_epoch: Fraction
    epoch_images: int

    @property
    def steps_per_epoch(self) -> Fraction:
        """epoch_images / kn, exactly (a fraction when the last minibatch carries over)."""
        return Fraction(self.epoch_images, self.minibatch.images)

    def epoch_at(self, steps: int) -> Fraction:
        """Epochs done after so many steps, those before the phase included."""
        return self.first_epoch + (steps - self.first_step) / self.steps_per_epoch

    def steps(self, epoch: Fraction) -> Fraction:
        """Steps done at an epoch, unrounded: the inverse of ``epoch_at``."""
        return self.first_step + (epoch - self.first_epoch) * self.steps_per_epoch

    def position(self, step: int) -> int:
        """Where in the stream the first image of this step is."""
        # Whole: a phase begins where a step has ended, with "drop" at a whole epoch.
        return int(self.first_epoch * self.epoch_images) + (step - self.first_step) * self.minibatch.images


@dataclass(frozen=True)
class StepPlan:
    """The steps of a run: a stream of images cut into minibatches, larger ones after each change.

    With ``partial="carry"`` the stream runs over all N images an epoch, so the last partial minibatch of an epoch is
    filled from the next epoch's shuffle; with ``"drop"`` it runs over the first floor(N / kn) kn of each shuffle. A
    change at epoch e takes effect at the first step that begins at e or later, with the very next image:

        t_i = t_(i-1) + ceil((e_i - c_(i-1)) N / kn_(i-1)),   c_i = c_(i-1) + (t_i - t_(i-1)) kn_(i-1) / N

    Args:
        minibatch: the first one.
        training_images: N.
        epochs: passes over the data (need not be whole).
        partial: "carry" or "drop".
        growth: the changes, in order.

    Raises:
        RecipeError: a minibatch larger than N, a change before which or after which no step is left, or with "drop" one
            inside an epoch.

    Examples:
        >>> plan = batchscale.StepPlan(batchscale.Minibatch(8, 32), training_images=1000, epochs=3)
        >>> plan.total_steps
        12
        >>> plan.epoch_at(4)
        Fraction(128, 125)

    Source: Mikami et al. 2018 (batch-size control).
    """

    minibatch: Minibatch
    training_images: int
    epochs: float
    partial: str = "carry"
    growth: tuple[Change, ...] = ()

    def __post_init__(self) -> None:
        self.minibatch.check_fits(self.training_images)
        for change in self.growth:
            if change.minibatch.images > self.training_images:
                raise RecipeError(
                    f"minibatch.growth: {change.minibatch.images} images from epoch {float(change.epoch):.10g} on: "
                    f"must not exceed the {self.training_images} training images; let it grow less, or less often"
                )
        for phase, change in zip(self.phases[1:], self.growth, strict=True):
            if self.partial == "drop" and phase.first_epoch.denominator > 1:
                raise RecipeError(
                    f"minibatch.growth at epoch {float(change.epoch):.10g}: with data.partial=drop it must be a whole "
                    f"epoch; use data.partial=carry or another epoch"
                )
        # A change that no step separates from the one before it, or from the end, would never be trained on.
        firsts = [*(phase.first_step for phase in self.phases), self.total_steps]
        for change, previous, first, following in zip(self.growth, firsts, firsts[1:], firsts[2:], strict=False):
            if not previous < first < following:
                raise RecipeError(
                    f"minibatch.growth at epoch {float(change.epoch):.10g}: must leave a step before it and one after "
                    f"it, in a run of {self.epochs:g} epochs; use fewer changes, or other epochs"
                )

    @cached_property
    def phases(self) -> tuple[Phase, ...]:
        """One for each minibatch, in order."""
        phases = [Phase(self.minibatch, 0, Fraction(0), self._epoch_images(self.minibatch))]
        for change in self.growth:
            # Fractions all the way: in floats a change, or the end, could come a step late by rounding alone.
            first_step = math.ceil(phases[-1].steps(change.epoch))
            epoch_images = self._epoch_images(change.minibatch)
            phases.append(Phase(change.minibatch, first_step, phases[-1].epoch_at(first_step), epoch_images))
        return tuple(phases)

    def _epoch_images(self, minibatch: Minibatch) -> int:
        if self.partial == "drop":
            return self.training_images // minibatch.images * minibatch.images
        return self.training_images

    @cached_property
    def _first_steps(self) -> list[int]:
        return [phase.first_step for phase in self.phases]

    def phase(self, step: int) -> Phase:
        """The phase that holds this step (0 is the first)."""
        return self.phases[bisect_right(self._first_steps, step) - 1]

    def minibatch_at(self, step: int) -> Minibatch:
        """k x n of this step."""
        return self.phase(step).minibatch

    @cached_property
    def total_steps(self) -> int:
        """The first step count at which the epochs are done: no minibatch size sees fewer images than another."""
        return math.ceil(self.steps(self.epochs))

    @property
    def total_is_certain(self) -> bool:
        """Whether no decision during the run can make the steps fewer."""
        return True

    @property
    def as_stated(self) -> StepPlan:
        """The plan that the recipe alone states, without what was decided during the run."""
        return self

    @property
    def fastest(self) -> StepPlan:
        """The plan whose minibatch grows as early as it may."""
        return self

    def reachable(self, step: int = 0) -> tuple[Minibatch, ...]:
        """Every minibatch that this step, or a later one, may have, the smallest first."""
        return tuple(phase.minibatch for phase in self.phases if self.steps_of(phase).stop > step)

    def same_until(self, step: int) -> int:
        """The step from which on the minibatch may be another one than in this step."""
        return self.steps_of(self.phase(step)).stop

    def steps_of(self, phase: Phase) -> range:
        """The steps of a phase."""
        index = self.phases.index(phase) + 1
        return range(phase.first_step, self.phases[index].first_step if index < len(self.phases) else self.total_steps)

    def steps(self, epochs: float) -> Fraction:
        """The step count at an epoch, unrounded: the inverse of ``epoch_at``."""
        epoch = Fraction(str(epochs))  # as it is written: 0.1 is a tenth, not the nearest binary number
        return max((p for p in self.phases if p.first_epoch <= epoch), key=lambda p: p.first_epoch).steps(epoch)

    def epoch_at(self, steps: int) -> Fraction:
        """Epochs done after so many steps, exactly."""
        return self.phase(steps).epoch_at(steps)

    def epochs_done(self, steps: int) -> int:
        """Whole epochs finished after this many steps."""
        return int(self.epoch_at(steps))

    def ends_epoch(self, step: int) -> bool:
        """Whether an epoch's last image is in this step."""
        return self.epochs_done(step + 1) > self.epochs_done(step)

    def images(self, steps: int) -> int:
        """Images trained on in so many steps."""
        # A phase that begins after so many steps has an empty range.
        inside = [range(p.first_step, min(self.steps_of(p).stop, steps)) for p in self.phases]
        return sum(len(part) * p.minibatch.images for part, p in zip(inside, self.phases, strict=True))
