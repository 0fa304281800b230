"""What is measured of a run while it trains: any measure of a state, every so many steps."""

from __future__ import annotations

from pydantic import Field

from batchscale.recipe.base import Count, Entry


class MeasureEntry(Entry):
    """A measure of the run's state, taken between two steps."""

    name: str = Field(min_length=1)  # as in `batchscale measure NAME`
    every: Count | None = None  # steps, and after the last one; null: after the last step alone
    # of the measure, as its flags are called: {examples: 512} for --examples 512
    options: dict[str, bool | int | float | str] = Field(default_factory=dict)
