"""The question of a landscape with every default filled in."""

from __future__ import annotations

from batchscale.errors import UsageError
from batchscale.measure.landscape.question import Question
from batchscale.words import counted

_USUAL_EXAMPLES = 5000
_USUAL_AXES = {"around": (-1.0, 1.0), "line": (-0.5, 1.5)}


def filled(question: Question, form: str, train: int, test: int) -> Question:
    """The question with form, axes and examples.

    Args:
        question: as asked.
        form: around, or line.
        train, test: examples that there are of either part.

    Raises:
        UsageError: a line of two dimensions, an axis without length, or more examples than there are.
    """
    if form == "line" and question.dimensions == 2:
        raise UsageError("--dimensions=2: the line between two runs has one; leave it out, or use --form around")
    low, high = _ends(question, form)
    curve = form == "line" or question.dimensions == 1
    return question.model_copy(
        update={
            "form": form,
            "dimensions": 1 if form == "line" else question.dimensions or 2,
            "low": low,
            "high": high,
            "examples": _count("examples", question.examples, _USUAL_EXAMPLES, train, "training"),
            "test_examples": _count("test-examples", question.test_examples, _USUAL_EXAMPLES * curve, test, "test"),
        }
    )


def _ends(question: Question, form: str) -> tuple[float, float]:
    """Where the axes begin and end."""
    usual = _USUAL_AXES[form]
    low = usual[0] if question.low is None else question.low
    high = usual[1] if question.high is None else question.high
    if not low < high:
        raise UsageError(f"--low={low:g}: must lie below --high={high:g}; lower it, or give another --high")
    return low, high


def _count(name: str, wanted: int | None, usual: int, population: int, part: str) -> int:
    if wanted is not None and wanted > population:
        raise UsageError(f"--{name}={wanted}: must not exceed the {counted(population, f'{part} example')}; lower it")
    return min(usual, population) if wanted is None else wanted
