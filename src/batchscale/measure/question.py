"""What a measure asks of the states of runs: fields with range and words. Never imports torch."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from batchscale.asking import flag, read_by
from batchscale.recipe.base import Entry


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if not all(names) or len(set(names)) < len(names):
        raise ValueError("must be names of parts with commas between them, each once, such as layer1,fc")
    return names


PartNames = Annotated[tuple[str, ...], read_by(_names)]
PARTS: Any = flag(
    "parts of the net, by names of modules or weights, each measured by itself (default: the whole net)",
    "NAME,...",
    default=None,
)
"""The field of a measure that is taken of parts, too."""


class MeasureQuestion(Entry):
    """A question of any measure; its flags come from its fields, as a study's do.

    Attributes:
        summary: of the measure, for the list of measures.
        about: what it measures and tells, with an example.
        most_runs: that it is asked of at once.
        resumes: its answer_of takes the folder of the findings, and goes on from what an ended one has left there.
    """

    summary: ClassVar[str]
    about: ClassVar[str]
    most_runs: ClassVar[int] = 1
    resumes: ClassVar[bool] = False
