"""The minibatch of a recipe, and how it grows: one entry class for each way.

A new way is its function in ``update/growth.py`` and its class here, added to GROWTH_ENTRIES.
"""

from __future__ import annotations

import itertools
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SerializeAsAny, WrapValidator, model_validator

from batchscale.recipe.base import Count, Entry, Positive
from batchscale.recipe.union import EntryUnion

GrowingPart = Literal["workers", "per_worker"]
"""What grows: k or n."""
LearningRateWord = Literal["follows", "stays"]
"""learning_rate.scaling of the new kn, or the lr as it was."""


class GrownMinibatch(Entry):
    """The minibatch from an epoch on; what is left out stays as it was."""

    epoch: Positive
    workers: Count | None = None
    per_worker: Count | None = None


class GrowthEntry(Entry):
    """How the minibatch grows during the run: what every way has."""

    kind: str

    def stated(self) -> tuple[GrownMinibatch, ...]:
        """The minibatches that the recipe itself states."""
        return ()

    def options(self) -> dict[str, Any]:
        """What ``update.growth.Growth`` needs to know beside the stated minibatches."""
        content = self.model_dump(exclude={"kind", "phases", "learning_rate"})
        return {"grows" if name == "of" else name: value for name, value in content.items()}

    def first_epochs(self) -> list[float]:
        """Epochs that must lie within the run."""
        return [change.epoch for change in self.stated()]

    def lr_follows(self) -> bool:
        """Whether the lr is scaled to every new minibatch."""
        return True

    def measures_noise_every(self) -> int | None:
        """Every so many steps the noise scale is measured; None where growth does not go by it."""
        return None

    def measures_state(self) -> bool:
        """Whether growth goes by a measure of the run's state between two steps."""
        return False

    def check_fits(self, workers: int, per_worker: int) -> None:
        """Raise where a run cannot begin with this minibatch.

        Raises:
            ValueError: one line.
        """


class NoGrowth(GrowthEntry):
    """One minibatch for the whole run."""

    kind: Literal["none"] = "none"


class StatedGrowth(GrowthEntry):
    """Minibatches at stated epochs."""

    kind: Literal["phases"] = "phases"
    phases: Annotated[tuple[GrownMinibatch, ...], Field(strict=False)] = ()
    learning_rate: LearningRateWord = "follows"

    def stated(self) -> tuple[GrownMinibatch, ...]:
        return self.phases

    def lr_follows(self) -> bool:
        return self.learning_rate == "follows"

    @model_validator(mode="after")
    def _has_phases(self) -> Self:
        if not self.phases:
            raise ValueError("kind: phases needs phases, for example phases: [{epoch: 5, workers: 16}]")
        return self


class DoublingGrowth(GrowthEntry):
    """Twice as many images every so many epochs."""

    kind: Literal["doubling"] = "doubling"
    of: GrowingPart = "workers"
    every_epochs: Positive = 20.0  # Devarakonda et al. 2017
    learning_rate: LearningRateWord = "follows"

    def options(self) -> dict[str, Any]:
        """What ``update.growth.Growth`` needs to know beside the stated minibatches."""
        content = self.model_dump(exclude={"kind", "phases", "learning_rate"})
        return {"grows" if name == "of" else name: value for name, value in content.items()}

    def first_epochs(self) -> list[float]:
        return [self.every_epochs]

    def lr_follows(self) -> bool:
        return self.learning_rate == "follows"


class GrowthInsteadOfDecay(GrowthEntry):
    """Larger minibatches where the lr would fall."""

    kind: Literal["instead_of_decay"] = "instead_of_decay"
    of: GrowingPart = "workers"

    def lr_follows(self) -> bool:
        return False


class DecidedGrowth(GrowthEntry):
    """The number of workers doubles by decisions of a measure, during the run."""

    largest: Count  # of the minibatch, in images
    every_examples: Count | None = None  # a decision every so many images (null: an epoch's)
    confirm: Count = 2  # decisions in a row that must agree (by default 1 of kind: curvature)
    hold_examples: Annotated[int, Field(ge=0)] = 0  # images between two doublings at least
    # steps from a decision to the first step that it changes: the feed makes up to 3 ready in advance
    delay_steps: Annotated[int, Field(ge=4)] = 8
    learning_rate: LearningRateWord = "follows"

    def asks_for(self) -> str:
        """What the measure must show for a larger minibatch, in words."""
        raise NotImplementedError

    def options(self) -> dict[str, Any]:
        return {}

    def lr_follows(self) -> bool:
        return self.learning_rate == "follows"

    def check_fits(self, workers: int, per_worker: int) -> None:
        first = workers * per_worker
        if self.largest < 2 * first:
            raise ValueError(
                f"growth.largest={self.largest}: must be at least twice the first minibatch, {workers} x {per_worker} "
                f"= {first} images; raise it, or use growth={{kind: none}}"
            )


class GrowthByNoiseScale(DecidedGrowth):
    """Larger minibatches where the measured noise scale is a multiple of them."""

    kind: Literal["noise_scale"] = "noise_scale"
    # the minibatch doubles where the noise scale is above so many times it; 2: what it doubles to is below the scale
    multiple: Positive = 2.0
    measure_steps: Count = 10  # every so many steps measure

    def asks_for(self) -> str:
        return f"noise scale > {self.multiple:g} kn"

    def measures_noise_every(self) -> int | None:
        return self.measure_steps


class GrowthByCurvature(DecidedGrowth):
    """Larger minibatches as the top eigenvalue of the Hessian falls."""

    kind: Literal["curvature"] = "curvature"
    confirm: Count = 1  # decisions in a row that must agree
    # the minibatch doubles where the top eigenvalue is at most this share of that at the last growth: 1 / falls_by
    falls_by: Annotated[float, Field(gt=1, allow_inf_nan=False)] = 2.0
    duration: Count | None = 10  # decisions without growth after which it doubles all the same; null: it does not
    curvature_examples: Count = 1000  # of the training set, whose mean loss has the Hessian; at most all of it
    tolerance: Positive = 0.01  # relative change of the eigenvalue at which the power iteration ends
    most_products: Count = 20  # of the Hessian with a vector, a decision

    def asks_for(self) -> str:
        stayed = "" if self.duration is None else f" (or after {self.duration} decisions without growth)"
        return f"lambda <= lambda_0 / {self.falls_by:g}{stayed}"

    def measures_state(self) -> bool:
        return True


class SeesawGrowth(GrowthEntry):
    """Twice as many images at each halving of the lr's decay; the lr falls by the root of it."""

    kind: Literal["seesaw"] = "seesaw"
    of: GrowingPart = "workers"


GROWTH_ENTRIES: EntryUnion[GrowthEntry] = EntryUnion(
    "minibatch.growth",
    GrowthEntry,
    "kind",
    (NoGrowth, StatedGrowth, DoublingGrowth, GrowthInsteadOfDecay, SeesawGrowth, GrowthByNoiseScale, GrowthByCurvature),
)
AnyGrowth = Annotated[SerializeAsAny[GrowthEntry], WrapValidator(GROWTH_ENTRIES)]


class MinibatchEntry(Entry):
    """k workers of n images, more as the run goes on where growth says so."""

    workers: Count
    per_worker: Count
    growth: AnyGrowth = NoGrowth()

    def phases(self) -> list[tuple[float, int, int]]:
        """(epoch, workers, per_worker) at the start and at every stated change."""
        phases = [(0.0, self.workers, self.per_worker)]
        for change in self.growth.stated():
            _, k, n = phases[-1]
            phases.append((change.epoch, change.workers or k, change.per_worker or n))
        return phases

    @model_validator(mode="after")
    def _growth_fits(self) -> Self:
        self.growth.check_fits(self.workers, self.per_worker)
        return self

    @model_validator(mode="after")
    def _phases_grow(self) -> Self:
        for (earlier, k, n), (epoch, workers, per_worker) in itertools.pairwise(self.phases()):
            if epoch <= earlier:
                raise ValueError(
                    f"growth.phases: epoch {epoch:.10g} after {earlier:.10g}: epochs must rise from above 0"
                )
            if workers < k or per_worker < n or (workers, per_worker) == (k, n):
                raise ValueError(
                    f"growth.phases: {workers} x {per_worker} images at epoch {epoch:.10g} after {k} x {n}: workers "
                    f"and per_worker must not fall, and one must grow; give larger ones"
                )
        return self
