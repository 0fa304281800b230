"""Warmup in numbers: score and training loss of the reference and of every warmup."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from batchscale.study.evidence.elbow import Point
from batchscale.study.evidence.judged import Judged, judged_of
from batchscale.study.evidence.quantities import point_of, score_of, train_loss
from batchscale.study.question import Case
from batchscale.study.runner.cell import Outcome
from batchscale.study.warmup.question import Question


@dataclass(frozen=True)
class WarmupRuns:
    """The runs of the reference, or of one warmup.

    Args:
        name: "reference" or the kind of warmup.
        scores: infinite for a run that diverged.
        losses: training losses of the last epoch, alike.
    """

    name: str
    scores: Point
    losses: Point

    @property
    def diverged(self) -> int:
        """Runs."""
        return sum(map(math.isinf, self.scores.errors))


@dataclass(frozen=True)
class Answer:
    """Every warmup, the reference first."""

    ways: tuple[WarmupRuns, ...]
    judged: Judged

    @property
    def reference(self) -> WarmupRuns:
        """What is compared with."""
        return self.ways[0]

    @property
    def known(self) -> list[WarmupRuns]:
        """The warmups with a mean."""
        return [way for way in self.ways[1:] if math.isfinite(way.scores.mean)]


def answer_of(case: Case[Question], outcomes: Sequence[Outcome]) -> Answer:
    """The outcomes, by warmup."""
    groups: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault(outcome.cell.labels["warmup"], []).append(outcome)
    ways = []
    for name, group in groups.items():
        minibatch = group[0].cell.labels["minibatch"]
        scores = point_of(minibatch, map(score_of, group))
        ways.append(WarmupRuns(name, scores, point_of(minibatch, map(train_loss, group))))
    return Answer(tuple(ways), judged_of(outcomes))


def as_json(case: Case[Question], answer: Answer) -> dict[str, Any]:
    """The answer as numbers."""
    return {
        "warmup": {
            "minibatch": case.question.minibatch,
            "reference_minibatch": case.recipe.learning_rate.reference_minibatch,
            "evaluated_on": answer.judged.split,
            "ways": {
                way.name: {
                    **answer.judged.entries(way.scores.mean),
                    "deviation": way.scores.deviation(),
                    "train_loss": None if math.isinf(way.losses.mean) else way.losses.mean,
                    "train_loss_deviation": way.losses.deviation(),
                    "diverged": way.diverged,
                }
                for way in answer.ways
            },
        }
    }
