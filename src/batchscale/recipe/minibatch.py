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


class SeesawGrowth(GrowthEntry):
    """Twice as many images at each halving of the lr's decay; the lr falls by the root of it."""

    kind: Literal["seesaw"] = "seesaw"
    of: GrowingPart = "workers"


GROWTH_ENTRIES: EntryUnion[GrowthEntry] = EntryUnion(
    "minibatch.growth",
    GrowthEntry,
    "kind",
    (NoGrowth, StatedGrowth, DoublingGrowth, GrowthInsteadOfDecay, SeesawGrowth),
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
