"""A run's result as the one number that a study compares: infinite where it diverged, None where it has none."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from batchscale.records import Result
from batchscale.study.evidence.elbow import Point
from batchscale.study.runner.cell import Outcome

Statistic = Literal["final", "median5"]


def score_of(outcome: Outcome, statistic: Statistic = "final") -> float | None:
    """The task's score: of the last evaluation, or the median of the last five."""
    if statistic == "final":
        return _of(outcome, lambda result: result.judged_by.value)
    return _of(outcome, lambda result: result.model_dump().get(f"test_{result.judged_by.name}_median_last_5"))


def train_loss(outcome: Outcome) -> float | None:
    """Training loss of the last whole epoch."""
    return _of(outcome, lambda result: result.train_loss)


def point_of(minibatch: int, values: Iterable[float | None]) -> Point:
    """The known values of a minibatch's runs."""
    return Point(minibatch, tuple(value for value in values if value is not None))


def evaluated_on(outcomes: Sequence[Outcome]) -> str:
    """What the errors are of, in a word for "... error": test, or holdout; both where the runs differ."""
    parts = dict.fromkeys(outcome.result.evaluated_on for outcome in outcomes if outcome.result is not None)
    return " or ".join(parts) or "test"


def _of(outcome: Outcome, take: Callable[[Result], float | None]) -> float | None:
    if outcome.status == "diverged":
        return math.inf
    return take(outcome.result) if outcome.status == "done" and outcome.result is not None else None
