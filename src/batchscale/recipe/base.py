"""What every entry of a recipe is built on: frozen, no unknown keys, no conversions; the ranges of numbers."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Share = Annotated[float, Field(gt=0, le=1)]
OpenFraction = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
Epochs = Annotated[tuple[Positive, ...], Field(strict=False)]


class Entry(BaseModel):
    """One mapping of a recipe: unknown keys and wrong types are errors, nothing changes after loading."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
