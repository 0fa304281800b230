"""The demonstration's numbers: a grid's, each way with its name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from batchscale.study.demo.question import WAYS, Question
from batchscale.study.grid import answer as grid
from batchscale.study.question import Case
from batchscale.study.runner.cell import Outcome

Answer = grid.Answer


def answer_of(case: Case[Question], outcomes: Sequence[Outcome]) -> Answer:
    """Every way over its seeds."""
    return grid.answer_of(case, outcomes)


def as_json(case: Case[Question], answer: Answer) -> dict[str, Any]:
    """{"ways": [...]}, as of a grid, and name and about of each way."""
    names = {way.about: way.name for way in WAYS}
    return {"ways": [way.as_json() | {"name": names[way.name], "about": way.name} for way in answer.ways]}
