"""The demonstration in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from batchscale.study.demo.question import Question
from batchscale.study.evidence.instrument import words_of
from batchscale.study.grid import words as grid
from batchscale.study.grid.answer import Answer, Way
from batchscale.study.question import Case
from batchscale.study.runner.cell import Outcome
from batchscale.words import counted

LESSON = (
    "The same net, data and epochs. Leaving the lr unscaled is what breaks; scaling it with kn mends it.",
    "On a problem this small, at this lr, warmup makes no clear difference; docs/log.md says where it does.",
)
"""What it shows, and what not."""


def title(case: Case[Question]) -> str:
    """Of the page, and of its picture."""
    return f"{case.recipe_name}: same epochs, small and large minibatch"


def asked(case: Case[Question], outcomes: Sequence[Outcome]) -> str:
    """The question, with all that limits it."""
    if case.question.task != "classification":
        return (
            f"Does a large minibatch do as well as a small one in the same "
            f"{counted(case.recipe.epochs, 'epoch', 'g')}? {case.training_images:,} training examples, "
            f"{case.question.seeds_words} each."
            f"{words_of([outcome.cell for outcome in outcomes])}"
        )
    return (
        f"Does a large minibatch reach the error of a small one in the same {counted(case.recipe.epochs, 'epoch', 'g')}"
        f"? {case.training_images:,} training images, {case.question.seeds_words} each."
        f"{words_of([outcome.cell for outcome in outcomes])} {LESSON[1]}"
    )


def sentence(case: Case[Question], answer: Answer) -> str:
    """The error of every way."""
    ways = "; ".join(f"{way.name} (kn = {way.minibatch:,}): {_mean(way)}" for way in answer.ways)
    return f"Mean {answer.judged.words} of every way: {ways}."


def _mean(way: Way) -> str:
    if way.mean is None:
        return f"none, {way.diverged} of {counted(len(way.scores), 'run')} diverged" if way.diverged else "no result"
    return way.judged.text(way.mean)


def warnings(case: Case[Question], answer: Answer, outcomes: Sequence[Outcome]) -> Iterator[str]:
    """A grid's."""
    return grid.warnings(case, answer, outcomes)
