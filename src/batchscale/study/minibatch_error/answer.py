"""Error against minibatch in numbers: the points of every rule, and their elbows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from batchscale.study.evidence.elbow import Answer as Elbows
from batchscale.study.evidence.elbow import Elbow, Point, compare_rules
from batchscale.study.evidence.judged import Judged, judged_of
from batchscale.study.evidence.measured import MeasuredEnds, measured_ends
from batchscale.study.evidence.quantities import score_of
from batchscale.study.minibatch_error.question import Question
from batchscale.study.question import Case
from batchscale.study.runner.cell import Outcome


@dataclass(frozen=True)
class Answer:
    """How far every rule reaches.

    Args:
        points: rule -> its points in rising order.
        elbows: of all rules.
        judged: what the runs are judged by.
        measured: (rule, minibatch) -> numbers of measures at the runs' ends.
        tolerance: how much worse than the reference counts as without loss, in the score's unit.
    """

    points: dict[str, list[Point]]
    elbows: Elbows
    judged: Judged
    tolerance: float
    measured: dict[tuple[str, int], tuple[MeasuredEnds, ...]] = field(default_factory=dict)

    @property
    def reference(self) -> Point:
        """The point compared with."""
        points = self.points[self.elbows.reference_rule]
        return next(point for point in points if point.minibatch == self.elbows.reference.minibatch)

    @property
    def best(self) -> Elbow:
        """Of the rule that reaches furthest."""
        return self.elbows.elbows[self.elbows.best]


def answer_of(case: Case[Question], outcomes: Sequence[Outcome]) -> Answer:
    """The elbow of every rule."""
    judged, question = judged_of(outcomes), case.question
    scores: dict[str, dict[int, list[float]]] = {}
    for outcome in outcomes:
        labels, score = outcome.cell.labels, score_of(outcome, question.statistic)
        known = scores.setdefault(labels["rule"], {}).setdefault(labels["minibatch"], [])
        if score is not None:
            known.append(score)
    points = {
        rule: [Point(minibatch, tuple(known)) for minibatch, known in sorted(each.items())]
        for rule, each in scores.items()
    }
    losses = {rule: list(map(judged.losses, each)) for rule, each in points.items()}
    reference = question.compared_with(case.recipe)
    lowest = min(point.mean for each in losses.values() for point in each if point.minibatch == reference)
    tolerance = judged.tolerance(question.tolerance, lowest)
    return Answer(points, compare_rules(losses, reference, tolerance), judged, tolerance, _measured(case, outcomes))


def together(outcomes: Sequence[Outcome]) -> dict[tuple[str, int], list[Outcome]]:
    """(rule, minibatch) -> its outcomes, one a seed."""
    groups: dict[tuple[str, int], list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault((outcome.cell.labels["rule"], outcome.cell.labels["minibatch"]), []).append(outcome)
    return groups


def _measured(case: Case[Question], outcomes: Sequence[Outcome]) -> dict[tuple[str, int], tuple[MeasuredEnds, ...]]:
    measures = case.question.measure
    return {place: measured_ends(group, measures) for place, group in together(outcomes).items()} if measures else {}


def as_json(case: Case[Question], answer: Answer) -> dict[str, Any]:
    """The answer as numbers."""
    best, mean = answer.best, answer.reference.mean
    return {
        "elbow": {
            "minibatch": best.minibatch,
            "at_least": best.at_least,
            "low": best.low,
            "high": best.high,
            "best_rule": answer.elbows.best,
            "tolerance_points": answer.tolerance,
            "statistic": case.question.statistic,
            "reference_minibatch": answer.reference.minibatch,
            "reference_rule": answer.elbows.reference_rule,
            f"reference_{answer.judged.key}": None if math.isinf(mean) else mean,
            "rules": {rule: asdict(elbow) for rule, elbow in answer.elbows.elbows.items()},
            "evaluated_on": answer.judged.split,
        },
        **({"measures": _as_rows(answer)} if answer.measured else {}),
    }


def _as_rows(answer: Answer) -> list[dict[str, Any]]:
    return [
        {"rule": rule, "minibatch": minibatch, **one.as_json()}
        for (rule, minibatch), numbers in answer.measured.items()
        for one in numbers
    ]
