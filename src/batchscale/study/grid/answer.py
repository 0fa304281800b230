"""A grid's numbers: the score of every way over its seeds.

score of a way = mean over its seeds, none where one diverged; its spread = their standard deviation (n - 1)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from batchscale.study.evidence.elbow import Point
from batchscale.study.evidence.judged import Judged, judged_of
from batchscale.study.evidence.measured import MeasuredEnds, measured_ends
from batchscale.study.evidence.quantities import point_of, score_of
from batchscale.study.measuring import measures_of
from batchscale.study.question import Case
from batchscale.study.runner.cell import Outcome


@dataclass(frozen=True)
class Way:
    """The runs of one way.

    Args:
        name: of the way.
        lr: after warmup, before decay, of the first phase.
        judged: what its runs are judged by.
        scores: one a seed; infinite for a run that diverged, None for one without a result.
        done, diverged, failed: runs.
        measured: numbers of measures at the runs' ends.
    """

    name: str
    minibatch: int
    lr: float
    judged: Judged
    scores: tuple[float | None, ...]
    done: int
    diverged: int
    failed: int
    measured: tuple[MeasuredEnds, ...] = ()

    @property
    def point(self) -> Point:
        """The known scores."""
        return point_of(self.minibatch, self.scores)

    @property
    def mean(self) -> float | None:
        """None where a run diverged, or none has a result."""
        return None if math.isinf(self.point.mean) else self.point.mean

    @property
    def deviation(self) -> float | None:
        """None where the mean is, and of one run."""
        return self.point.deviation()

    @property
    def values(self) -> list[float | None]:
        """One a seed; None of a run that diverged or has none."""
        return [None if score is None or math.isinf(score) else score for score in self.scores]

    @property
    def runs(self) -> int:
        """With a known score."""
        return sum(value is not None for value in self.values)

    def as_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "name": self.name,
            "minibatch": self.minibatch,
            "lr": self.lr,
            "evaluated_on": self.judged.split,
            f"mean_{self.judged.key}": self.mean,
            f"std_{self.judged.key}": self.deviation,
            f"{self.judged.score.name}s": self.values,
            "done": self.done,
            "diverged": self.diverged,
            "failed": self.failed,
            **({"measures": [one.as_json() for one in self.measured]} if self.measured else {}),
        }


@dataclass(frozen=True)
class Answer:
    """Every way, in the order asked; the first is the reference."""

    ways: tuple[Way, ...]
    judged: Judged

    @property
    def known(self) -> list[Way]:
        """The ways with a mean."""
        return [way for way in self.ways if way.mean is not None]

    def best(self, ways: Sequence[Way]) -> Way:
        """The best of these, which have means; the first of several."""
        return self.judged.best(ways, lambda way: way.point.mean)


def answer_of(case: Case[Any], outcomes: Sequence[Outcome]) -> Answer:
    """The ways of outcomes with the label "way"."""
    groups, measures = by_way(outcomes).values(), measures_of(case)
    return Answer(tuple(way_of(group, measures) for group in groups), judged_of(outcomes))


def as_json(case: Case[Any], answer: Answer) -> dict[str, Any]:
    """The answer as numbers."""
    return {"ways": [way.as_json() for way in answer.ways]}


def by_way(outcomes: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    """The outcomes of every way."""
    groups: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault(str(outcome.cell.labels["way"]), []).append(outcome)
    return groups


def way_of(outcomes: Sequence[Outcome], measures: Sequence[str] = ()) -> Way:
    """One way of its outcomes, and what these measures said of them."""
    first = outcomes[0].cell
    done, diverged, failed = (sum(o.status == status for o in outcomes) for status in ("done", "diverged", "failed"))
    return Way(
        first.labels["way"],
        first.minibatch_images,
        first.target_lr,
        judged_of(outcomes),
        tuple(score_of(outcome) for outcome in outcomes),
        done,
        diverged,
        failed,
        measured_ends(outcomes, measures),
    )
