"""The elbow: how far the minibatch may grow before the error leaves the reference's, and how sure that is.

elbow = the largest kn such that mean error(kn') <= mean error(reference) + tolerance for every studied kn' from the
reference up to kn. Its uncertainty: seeds drawn again with replacement, at every minibatch on its own.

A run that diverged counts as above any tolerance.

Source: Goyal et al. 2017, figure 1; Efron 1979, "Bootstrap methods: another look at the jackknife".
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from batchscale.randomness import integers, key

RESAMPLES = 2000
FEWEST_SEEDS = 3  # fewer, and resamples say little
_SHARE = 0.9  # of the resampled elbows that lie within the interval
_STREAM = 301  # stream: seeds drawn again
_ROUNDING = 1e-9  # points; 1.06 - 0.56 is within 0.5


@dataclass(frozen=True)
class Point:
    """The errors of one minibatch under one rule.

    Args:
        minibatch: kn.
        errors: one a seed, in percent; infinite for a run that diverged, none for one that is missing.
    """

    minibatch: int
    errors: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Over the seeds; infinite where one diverged, or none is known."""
        return statistics.fmean(self.errors) if self.errors else math.inf

    def deviation(self) -> float | None:
        """Standard deviation over seeds (n - 1); None of fewer than two, or where one diverged."""
        return statistics.stdev(self.errors) if len(self.errors) > 1 and math.isfinite(self.mean) else None

    def band(self) -> tuple[float, float] | None:
        """mean -+ deviation of three seeds and more, the two of two seeds; None where there is no deviation."""
        deviation = self.deviation()
        if deviation is None:
            return None
        if len(self.errors) == 2:
            return min(self.errors), max(self.errors)
        return self.mean - deviation, self.mean + deviation


@dataclass(frozen=True)
class Elbow:
    """How far one rule reaches.

    Attributes:
        minibatch: the elbow; None where even the reference minibatch is not within the tolerance.
        at_least: it is the largest minibatch tried.
        low, high: 90 % of the resampled elbows lie between them (None: none within); the elbow itself for one seed.
        shares: resampled elbow ("none", or the minibatch) -> its share of the resamples; empty for one seed.
        seeds: the most runs of a minibatch.
    """

    minibatch: int | None
    at_least: bool
    low: int | None
    high: int | None
    shares: dict[str, float]
    seeds: int


def find_elbow(points: Sequence[Point], reference: Point, tolerance: float) -> Elbow:
    """The elbow of one rule.

    Args:
        points: of the rule, in rising order.
        reference: the point whose mean is compared with; its minibatch is where counting begins.
        tolerance: points of error.
    """
    counted = [point for point in points if point.minibatch >= reference.minibatch]
    tried = [point.minibatch for point in counted]
    bar = reference.mean + tolerance + _ROUNDING
    means = np.array([[point.mean for point in counted]])
    within = int(_within(means, np.array([bar]))[0])
    minibatch = tried[within - 1] if within else None
    at_least = bool(counted) and within == len(counted)
    seeds = max(len(point.errors) for point in [*counted, reference])
    if seeds < 2:
        return Elbow(minibatch, at_least, minibatch, minibatch, {}, seeds)
    drawn = np.stack([_resampled(point) for point in counted], axis=1)
    numbers = np.sort(_within(drawn, _resampled(reference) + tolerance + _ROUNDING))
    edge = (1 - _SHARE) / 2
    low, high = (numbers[min(int(share * RESAMPLES), RESAMPLES - 1)] for share in (edge, 1 - edge))
    names: list[int | None] = [None, *tried]
    shares = {str(name or "none"): float((numbers == i).mean()) for i, name in enumerate(names)}
    seen = {name: share for name, share in shares.items() if share}
    return Elbow(minibatch, at_least, names[low], names[high], seen, seeds)


def _within(means: npt.NDArray[np.float64], bars: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """How many minibatches in a row, from the reference on, are within the bar: (R, P), (R,) -> (R,)."""
    inside = (means <= bars[:, None]) & np.isfinite(means)
    counted: npt.NDArray[np.int64] = np.cumprod(inside, axis=1).sum(axis=1)
    return counted


def _resampled(point: Point) -> npt.NDArray[np.float64]:
    """Means over seeds drawn again, one a resample; the draws hang on the minibatch alone."""
    if not point.errors:
        return np.full(RESAMPLES, np.inf)
    counters = np.arange(RESAMPLES * len(point.errors)).reshape(RESAMPLES, -1)
    drawn = integers(key(_STREAM, point.minibatch), counters, len(point.errors))
    means: npt.NDArray[np.float64] = np.array(point.errors)[drawn].mean(axis=1)
    return means


@dataclass(frozen=True)
class Answer:
    """The elbows of all rules.

    Attributes:
        reference: the point compared with: at the reference minibatch, of the rule whose mean is lowest there.
        reference_rule: that rule.
        elbows: rule -> its elbow.
        best: the rule that reaches furthest; of those alike, the one with the lowest mean error there, then beyond.
    """

    reference: Point
    reference_rule: str
    elbows: dict[str, Elbow]
    best: str


def compare_rules(points: dict[str, list[Point]], reference: int, tolerance: float) -> Answer:
    """Find the elbow of every rule."""
    references = {rule: next(p for p in series if p.minibatch == reference) for rule, series in points.items()}
    lowest = min(references, key=lambda rule: references[rule].mean)
    elbows = {rule: find_elbow(series, references[lowest], tolerance) for rule, series in points.items()}

    def reach(rule: str) -> tuple[int, tuple[float, ...]]:
        furthest = elbows[rule].minibatch
        return furthest or 0, tuple(-p.mean for p in points[rule] if p.minibatch >= (furthest or reference))

    return Answer(references[lowest], lowest, elbows, max(elbows, key=reach))
