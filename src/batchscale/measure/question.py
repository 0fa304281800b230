"""What a measure asks of the states of runs: fields with range and words. Never imports torch."""

from __future__ import annotations

from typing import ClassVar

from batchscale.recipe.base import Entry


class MeasureQuestion(Entry):
    """A question of any measure; its flags come from its fields, as a study's do.

    Attributes:
        summary: of the measure, for the list of measures.
        about: what it measures and tells, with an example.
        most_runs: that it is asked of at once.
    """

    summary: ClassVar[str]
    about: ClassVar[str]
    most_runs: ClassVar[int] = 1
