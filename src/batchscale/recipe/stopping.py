"""What ends a run before its last step: an evaluation past a bound."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from batchscale.recipe.base import Entry, Positive

Finite = Annotated[float, Field(allow_inf_nan=False)]


class StopBelow(Entry):
    """What ends a run at the first evaluation below it; the schedules are those of the whole run."""

    error_percent: Positive | None = None
    loss: Positive | None = None


class StopAt(Entry):
    """What ends a run at the first evaluation whose score is past a bound; any score of the task by its name."""

    example: ClassVar[str] = "{score: error, below: 5}"  # for errors

    score: Annotated[str, Field(min_length=1)]
    below: Finite | None = None  # of a score that is better where it is lower
    above: Finite | None = None  # of one that is better where it is higher

    @model_validator(mode="after")
    def _has_one_bound(self) -> Self:
        if (self.below is None) == (self.above is None):
            bounds = "neither" if self.below is None else f"below={self.below:g} and above={self.above:g}"
            raise ValueError(
                f"must have either below or above, and has {bounds}; "
                f"write for example stop_at: {{score: {self.score}, above: 80}}"
            )
        return self

    def met_by(self, value: float) -> bool:
        """Whether a value is past the bound; one that is not finite never is."""
        past = (self.below is not None and value < self.below) or (self.above is not None and value > self.above)
        return past and math.isfinite(value)
