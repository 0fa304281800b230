"""The studies by name, and what all of them are made of.

A study is a folder of four files:

    question.py   class Question (fields), cells(case)
    answer.py     class Answer, answer_of(case, outcomes), as_json(case, answer)
    words.py      title(case), asked(case, outcomes), sentence(case, answer), warnings(case, answer, outcomes)
    figures.py    figures(case, answer, outcomes), tables(case, answer)

and a line in ``STUDIES``. Listing them, and asking for flags, never imports torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from batchscale.build.examples import examples_of
from batchscale.records.findings import Findings
from batchscale.records.provenance import environment
from batchscale.study.examples import in_words_of, with_parts
from batchscale.study.question import Case, StudyQuestion

if TYPE_CHECKING:
    from batchscale.study.runner.cell import Cell, Outcome

STUDIES = {
    "grid": "batchscale.study.grid",
    "minibatch-error": "batchscale.study.minibatch_error",
    "warmup": "batchscale.study.warmup",
    "steps-to-target": "batchscale.study.steps_to_target",
    "scaling": "batchscale.study.scaling",
    "branch": "batchscale.study.branch",
    "demo": "batchscale.study.demo",
}
"""Kind of study: the package that holds its four files."""

PARTS = {
    "question": ("Question", "cells"),
    "answer": ("Answer", "answer_of", "as_json"),
    "words": ("title", "asked", "sentence", "warnings"),
    "figures": ("figures", "tables"),
}
"""File of a study: the names that it must hold."""


def question_of(kind: str) -> type[StudyQuestion]:
    """The question of a kind of study."""
    question: type[StudyQuestion] = import_module(f"{STUDIES[kind]}.question").Question
    return question


def cells_of(kind: str, case: Case[Any]) -> list[Cell]:
    """The runs that a question asks for.

    Raises:
        UsageError: one line.
    """
    cells: list[Cell] = import_module(f"{_home(kind, case)}.question").cells(case)
    return cells


def findings_of(kind: str, case: Case[Any], outcomes: Sequence[Outcome], command: Sequence[str]) -> Findings:
    """What came out, as a document.

    Args:
        kind: of study.
        case: as asked.
        outcomes: of ``cells_of(kind, case)``, in their order.
        command: words of the command line.
    """
    home = _home(kind, case)
    numbers, words, drawn = (import_module(f"{home}.{part}") for part in ("answer", "words", "figures"))
    answer = numbers.answer_of(case, outcomes)
    findings = Findings(
        kind=kind,
        title=words.title(case),
        recipe=case.recipe_name,
        asked=words.asked(case, outcomes),
        answer=words.sentence(case, answer),
        command=tuple(command),
        rows=tuple(outcome.row() for outcome in outcomes),
        figures=tuple(drawn.figures(case, answer, outcomes)),
        tables=tuple(drawn.tables(case, answer)),
        warnings=tuple(words.warnings(case, answer, outcomes)),
        result=numbers.as_json(case, answer),
        environment=environment(),
    )
    findings = with_parts(findings, case.recipe)
    return in_words_of(findings, examples_of(case.recipe))


def _home(kind: str, case: Case[Any]) -> str:
    return case.question.home(case.recipe) or STUDIES[kind]
