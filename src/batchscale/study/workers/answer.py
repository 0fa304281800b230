"""Loss and score at every k; the score of one worker's shard of the evaluation set; where the score falls.

The interval of k = 1 is the 95 % interval of its mean over seeds:   mean -+ t(S - 1) s / sqrt S
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from batchscale.build.state import open_state
from batchscale.errors import BatchscaleError
from batchscale.study.evidence.elbow import Point
from batchscale.study.evidence.judged import Judged, judged_of
from batchscale.study.evidence.quantities import point_of, score_of, train_loss
from batchscale.study.evidence.welch import t_quantile
from batchscale.study.question import Case
from batchscale.study.runner.cell import Outcome
from batchscale.study.scaling.answer import Passing, passing
from batchscale.study.scaling.question import WEAK, Question
from batchscale.study.workers.question import examples_of

_LABELS = ("mode", "way", "fraction", "workers")


@dataclass(frozen=True)
class Place:
    """k workers in one mode, by one way, on a part of the training set.

    Attributes:
        scores, losses: final score, and training loss of the last epoch; one a seed.
        shards: the score of the first 1/k of the evaluation set by the same weights, one a seed that has it.
        whole: the score of the whole set by the same evaluation.
    """

    mode: str
    way: str
    fraction: float
    workers: int
    minibatch: int
    scores: Point
    losses: Point
    shards: Point
    whole: Point
    folder: str


@dataclass(frozen=True)
class Fall:
    """Where weak scaling leaves the interval of the smallest k, on a part of the training set.

    Attributes:
        examples: N.
        low, high: the interval; None of fewer than two seeds.
        minibatch: kn, interpolated in log2; None where it never leaves, or there is no interval.
        within: the largest kn measured before it.
    """

    fraction: float
    examples: int
    low: float | None
    high: float | None
    minibatch: float | None
    within: int | None


@dataclass(frozen=True)
class Answer:
    """All places, the limit of every way, and the fall on every part of the data."""

    places: tuple[Place, ...]
    limits: dict[str, Passing]
    falls: tuple[Fall, ...]
    judged: Judged

    def of(self, mode: str, way: str | None = None, fraction: float = 1.0) -> list[Place]:
        """The places of a mode and way in rising k."""
        return [p for p in self.places if p.mode == mode and way in (None, p.way) and p.fraction == fraction]


def answer_of(case: Case[Question], outcomes: Sequence[Outcome]) -> Answer:
    """The places, and where weak scaling's score falls."""
    groups: dict[tuple[Any, ...], list[Outcome]] = {}
    for outcome in outcomes:
        labels = outcome.cell.labels
        groups.setdefault(tuple(labels[name] for name in _LABELS), []).append(outcome)
    places = tuple(_place(case, group) for group in groups.values())
    judged = judged_of(outcomes)
    answer = Answer(places, {}, (), judged)
    weak = {(p.way, p.fraction): answer.of(WEAK, p.way, p.fraction) for p in places if p.mode == WEAK}
    stated = case.question.error_bound
    limits = {
        way: _limit(each, judged, judged.tolerance(stated, each[0].scores.mean))
        for (way, part), each in weak.items()
        if part == 1
    }
    first = case.question.ways[0]
    falls = [_fall(case, part, each, judged) for (way, part), each in weak.items() if way == first]
    return Answer(places, limits, tuple(falls), judged)


def _place(case: Case[Question], outcomes: Sequence[Outcome]) -> Place:
    labels = outcomes[0].cell.labels
    mode, way, fraction, workers = (labels[name] for name in _LABELS)
    minibatch, judged = outcomes[0].cell.minibatch_images, judged_of(outcomes)
    pairs = [_shard(case, outcome, workers, judged) for outcome in outcomes] if mode == WEAK and fraction == 1 else []
    return Place(
        mode, way, fraction, workers, minibatch,
        scores=point_of(minibatch, map(score_of, outcomes)),
        losses=point_of(minibatch, map(train_loss, outcomes)),
        shards=point_of(minibatch, (pair and pair[0] for pair in pairs)),
        whole=point_of(minibatch, (pair and pair[1] for pair in pairs)),
        folder=outcomes[0].row()["folder"],
    )  # fmt: skip


def _shard(case: Case[Question], outcome: Outcome, workers: int, judged: Judged) -> tuple[float, float] | None:
    """(score of the first 1/k of the evaluation set, of the whole) by the run's last weights; None without such."""
    if outcome.status != "done":
        return None
    try:
        state = open_state(outcome.folder, data_folder=case.data_folder)
        test, name = state.dataset.test, judged.score.name
        shard = test.select(np.arange(max(len(test) // workers, 1)))
        first, whole = (state.task.checked_scores(state.evaluate(examples=part))[name] for part in (shard, test))
        return first, whole
    except BatchscaleError:  # a run whose checkpoints or data are no longer there: its score stays
        return None


def _limit(places: Sequence[Place], judged: Judged, bound: float) -> Passing:
    """The kn at which the mean score is worse by more than the bound than that of the smallest k."""
    reference = places[0].scores.mean
    if math.isinf(reference):
        return Passing(None, None)
    worse = [(p.minibatch, judged.worse_by(p.scores.mean, reference) if p.scores.errors else None) for p in places]
    return passing(worse, bound, falls=False)


def _fall(case: Case[Question], part: float, places: Sequence[Place], judged: Judged) -> Fall:
    scores, examples = places[0].scores, examples_of(case, part)
    deviation = scores.deviation()
    if deviation is None:
        return Fall(part, examples, None, None, None, None)
    seeds = len(scores.errors)
    half = t_quantile(seeds - 1) * deviation / math.sqrt(seeds)
    passed = _limit(places, judged, half)
    return Fall(part, examples, scores.mean - half, scores.mean + half, passed.processes, passed.within)


def as_json(case: Case[Question], answer: Answer) -> dict[str, Any]:
    """The answer as numbers."""
    limits = {way: {"minibatch": limit.processes, "within": limit.within} for way, limit in answer.limits.items()}
    return {
        "scaling": {
            "over": "workers",
            "evaluated_on": answer.judged.split,
            "error_bound_points": _bound(case, answer),
            "limits": limits,
            "measured": [_place_json(answer, place) for place in answer.places],
            "falls": [asdict(fall) for fall in answer.falls],
        }
    }


def _bound(case: Case[Question], answer: Answer) -> float:
    """How much worse the score may be: against the smallest k of the first way."""
    weak = answer.of(WEAK, case.question.ways[0])
    return answer.judged.tolerance(case.question.error_bound, weak[0].scores.mean if weak else math.inf)


def _place_json(answer: Answer, place: Place) -> dict[str, Any]:
    shard = known(place.shards.mean)
    return {
        "mode": place.mode,
        "way": place.way,
        "fraction": place.fraction,
        "workers": place.workers,
        "minibatch": place.minibatch,
        **answer.judged.entries(place.scores.mean),
        "train_loss": known(place.losses.mean),
        "first_shard": shard,
        "first_shard_minus_whole": None if shard is None else shard - place.whole.mean,
    }


def known(value: float) -> float | None:
    """A mean; None where there is none."""
    return None if math.isinf(value) else value
