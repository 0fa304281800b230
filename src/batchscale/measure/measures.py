"""The measures by name, and what all of them are made of.

A measure is a folder of four files, as a study is:

    question.py   class Question (fields)
    answer.py     class Answer, answer_of(question, states, world), as_json(answer)
    words.py      title(answer), asked(answer), sentence(answer), warnings(answer)
    figures.py    figures(answer), tables(answer), numbers(answer): those that a run's page draws against epochs

and a line in ``MEASURES``. One that is taken of one's own things, too, has ``own.py`` with ``of_own``.
Listing them, and asking for flags, never imports torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchscale.errors import FolderError
from batchscale.measure.question import MeasureQuestion
from batchscale.records.findings import Findings
from batchscale.records.provenance import environment
from batchscale.records.result import read_result

if TYPE_CHECKING:
    from batchscale.build.state import State
    from batchscale.comm import World

MEASURES = {
    "noise-scale": "batchscale.measure.noise_scale",
    "curvature": "batchscale.measure.curvature",
    "landscape": "batchscale.measure.landscape",
    "distance": "batchscale.measure.distance",
    "sharpness": "batchscale.measure.sharpness",
}
"""Kind of measure: the package that holds its four files."""

MEASURE_PARTS = {
    "question": ("Question",),
    "answer": ("Answer", "answer_of", "as_json"),
    "words": ("title", "asked", "sentence", "warnings"),
    "figures": ("figures", "tables", "numbers"),
}
"""File of a measure: the names that it must hold."""


def question_of(kind: str) -> type[MeasureQuestion]:
    """The question of a kind of measure."""
    question: type[MeasureQuestion] = import_module(f"{MEASURES[kind]}.question").Question
    return question


def measured(
    kind: str,
    question: MeasureQuestion,
    states: Sequence[State],
    command: Sequence[str],
    world: World | None = None,
    folder: Path | None = None,
) -> Findings:
    """What a measure says of the states of runs, as a document.

    Args:
        kind: of measure.
        question: of that kind.
        states: opened, as many as it is asked of.
        command: words of the command line.
        world: the processes that share the work, which all call alike; None for this one alone.
        folder: of the findings, where a measure that resumes keeps what it has finished; None: nowhere.

    Raises:
        UsageError: one line.
    """
    home = MEASURES[kind]
    from batchscale.measure.function import in_threads

    numbers, words, drawn = (import_module(f"{home}.{part}") for part in ("answer", "words", "figures"))
    kept = {"folder": folder} if question.resumes else {}
    with in_threads(1):  # so that the bits hang on no number of cores: more of these are used by more processes
        answer = numbers.answer_of(question, states, world, **kept)
    return Findings(
        kind=kind,
        title=words.title(answer),
        recipe=_recipe_name(states[0]),
        asked=words.asked(answer),
        answer=words.sentence(answer),
        command=tuple(command),
        figures=tuple(drawn.figures(answer)),
        tables=tuple(drawn.tables(answer)),
        warnings=tuple(words.warnings(answer)),
        result=numbers.as_json(answer),
        environment=environment(command),
    )


def measured_line(
    kind: str, question: MeasureQuestion, states: Sequence[State], world: World | None = None
) -> dict[str, Any]:
    """The same of a run under way, for its line: the answer in a sentence, the numbers to draw, the document.

    Args:
        kind: of measure.
        question: of that kind.
        states: one, live.
        world: as of ``measured``.

    Raises:
        UsageError: one line.
    """
    home = MEASURES[kind]
    from batchscale.measure.function import in_threads

    numbers, words, drawn = (import_module(f"{home}.{part}") for part in ("answer", "words", "figures"))
    with in_threads(1):  # as above
        answer = numbers.answer_of(question, states, world)
    return {
        "answer": words.sentence(answer),
        "numbers": [number.as_json() for number in drawn.numbers(answer)],
        "result": numbers.as_json(answer),
    }


def _recipe_name(state: State) -> str:
    """As the run's result has it; of a run that has not ended, its folder's name."""
    try:
        return read_result(state.run).recipe
    except FolderError:
        return state.run.name
