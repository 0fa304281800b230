"""The answer in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from batchscale.study.question import Case
from batchscale.study.runner.cell import Outcome

from .answer import Answer
from .question import Question


def title(case: Case[Question]) -> str:
    return f"Learning rates of {case.recipe_name}"


def asked(case: Case[Question], outcomes: Sequence[Outcome]) -> str:
    return f"Which of {len(case.question.rates)} learning rates is best?"


def sentence(case: Case[Question], answer: Answer) -> str:
    return f"The best learning rate is {answer.best:g}."


def warnings(case: Case[Question], answer: Answer, outcomes: Sequence[Outcome]) -> Iterator[str]:
    if case.question.seeds == 1:
        yield "one seed"
