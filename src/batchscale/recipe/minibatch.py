"""The minibatch of a recipe, and how it grows."""

from __future__ import annotations

import itertools
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from batchscale.recipe.base import Count, Entry, Positive

GrowthName = Literal["none", "phases", "doubling", "instead_of_decay"]


class GrownMinibatch(Entry):
    """The minibatch from an epoch on; what is left out stays as it was."""

    epoch: Positive
    workers: Count | None = None
    per_worker: Count | None = None


_GROWTH_OPTIONS: dict[GrowthName, tuple[str, ...]] = {
    "none": (),
    "phases": ("phases", "learning_rate"),
    "doubling": ("of", "every_epochs", "learning_rate"),
    "instead_of_decay": ("of",),
}


class GrowthEntry(Entry):
    """How the minibatch grows during the run."""

    kind: GrowthName = "none"
    phases: Annotated[tuple[GrownMinibatch, ...], Field(strict=False)] = ()
    of: Literal["workers", "per_worker"] = "workers"  # what doubling and instead_of_decay act on
    every_epochs: Positive = 20.0  # Devarakonda et al. 2017
    learning_rate: Literal["follows", "stays"] = "follows"  # learning_rate.scaling of the new kn, or as it was

    @model_validator(mode="after")
    def _options_have_a_place(self) -> Self:
        taken = _GROWTH_OPTIONS[self.kind]
        for option in sorted(self.model_fields_set - {"kind", *taken}):
            raise ValueError(
                f"{option} has no place in kind: {self.kind}, which takes {', '.join(taken) or 'no options'}; "
                f"leave it out, or give the whole entry, such as minibatch.growth={{kind: {self.kind}}}"
            )
        if self.kind == "phases" and not self.phases:
            raise ValueError("kind: phases needs phases, for example phases: [{epoch: 5, workers: 16}]")
        return self

    @model_serializer(mode="wrap")
    def _without_options_that_have_no_place(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {k: v for k, v in handler(self).items() if k in ("kind", *_GROWTH_OPTIONS[self.kind])}


class MinibatchEntry(Entry):
    """k workers of n images, more as the run goes on where growth says so."""

    workers: Count
    per_worker: Count
    growth: GrowthEntry = GrowthEntry()

    def phases(self) -> list[tuple[float, int, int]]:
        """(epoch, workers, per_worker) at the start and at every given change."""
        made = [(0.0, self.workers, self.per_worker)]
        for change in self.growth.phases:
            _, k, n = made[-1]
            made.append((change.epoch, change.workers or k, change.per_worker or n))
        return made

    @model_validator(mode="after")
    def _phases_grow(self) -> Self:
        made = self.phases()
        for (before, k, n), (epoch, workers, per_worker) in itertools.pairwise(made):
            if epoch <= before:
                raise ValueError(
                    f"growth.phases: epoch {epoch:.10g} after {before:.10g}: epochs must rise from above 0"
                )
            if workers < k or per_worker < n or (workers, per_worker) == (k, n):
                raise ValueError(
                    f"growth.phases: {workers} x {per_worker} images at epoch {epoch:.10g} after {k} x {n}: workers "
                    f"and per_worker must not fall, and one must grow; give larger ones"
                )
        return self
