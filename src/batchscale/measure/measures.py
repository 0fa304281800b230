"""The measures by name, and what all of them are made of.

A measure is a folder of four files, as a study is:

    question.py   class Question (fields)
    answer.py     class Answer, answer_of(question, states), as_json(answer)
    words.py      title(answer), asked(answer), sentence(answer), warnings(answer)
    figures.py    figures(answer), tables(answer)

and a line in ``MEASURES``. Listing them, and asking for flags, never imports torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING

from batchscale.measure.question import MeasureQuestion
from batchscale.records.findings import Findings
from batchscale.records.provenance import environment

if TYPE_CHECKING:
    from batchscale.build.state import State

MEASURES = {"noise-scale": "batchscale.measure.noise_scale"}
"""Kind of measure: the package that holds its four files."""

MEASURE_PARTS = {
    "question": ("Question",),
    "answer": ("Answer", "answer_of", "as_json"),
    "words": ("title", "asked", "sentence", "warnings"),
    "figures": ("figures", "tables"),
}
"""File of a measure: the names that it must hold."""


def question_of(kind: str) -> type[MeasureQuestion]:
    """The question of a kind of measure."""
    question: type[MeasureQuestion] = import_module(f"{MEASURES[kind]}.question").Question
    return question


def measured(kind: str, question: MeasureQuestion, states: Sequence[State], command: Sequence[str]) -> Findings:
    """What a measure says of the states of runs, as a document.

    Args:
        kind: of measure.
        question: of that kind.
        states: opened, as many as it is asked of.
        command: words of the command line.

    Raises:
        UsageError: one line.
    """
    home = MEASURES[kind]
    numbers, words, drawn = (import_module(f"{home}.{part}") for part in ("answer", "words", "figures"))
    answer = numbers.answer_of(question, states)
    return Findings(
        kind=kind,
        title=words.title(answer),
        recipe=states[0].run.name,
        asked=words.asked(answer),
        answer=words.sentence(answer),
        command=tuple(command),
        figures=tuple(drawn.figures(answer)),
        tables=tuple(drawn.tables(answer)),
        warnings=tuple(words.warnings(answer)),
        result=numbers.as_json(answer),
        environment=environment(command),
    )
