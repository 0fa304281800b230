"""Half efficiency over a whole run: the minibatch, with an interval that holds the luck of the search, too.

At B_crit a run needs twice E_min examples (and twice S_min steps). S(B) is the least over the T trials of a search, so
another search would give another curve. The interval of 90 % is the widest, at either end, of

scatter   what the points' scatter around the curve and the rounding of evaluations leave: the likelihood (hyperbola.py)
search    trials drawn again: at every minibatch T of its T trials with replacement, the least of them, placed anywhere
          between its two evaluations, fitted again; the 5th and the 95th of 100

and then moved on by bias, log(B_crit / B_half), at the end to which it points: B_half is fitted to what half of the
trials would have found. The least of trials drawn again is never below the least, so the middle of such curves lies
above the curve, and says nothing of how far the best trial lies above the best settings there are; half of the trials
do, in part.

Covers B_crit in at least 90 % of searches that are alike: the same luck, in percent of the steps, at every minibatch
(94 to 98 % of 1,000 made-up ones; scatter alone 89 to 92, search alone 85 to 89). Where a search grows four times
harder from the smallest to the largest minibatch, the fewest steps lie too high on the right and B_crit too low: then
86 % (scatter 77, search 62); give more trials. It holds no other seed of data order and first weights than the trials
had. Measured: tests/study/test_steps_to_target_luck.py.

Source: Efron 1979, "Bootstrap methods: another look at the jackknife"; Bickel and Freedman 1981 (why the least of a
sample is no case for it alone). The three together are ours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from batchscale.hyperbola import (
    FEWEST_POINTS,
    Hyperbola,
    Values,
    fit,
    log_critical_of_many,
    log_width,
)
from batchscale.randomness import integers, key, uniform
from batchscale.study.steps_to_target.trials import Reached

RESAMPLES = 2000
CONFIDENCE = 0.9
_TRIALS, _PLACES = 302, 303  # streams: trials drawn again, and where between its evaluations a goal was passed
Bounds = tuple[float | None, float | None]
NO_BOUNDS: Bounds = (None, None)
_MUCH = 1.25  # as of the steps of half of the trials
_TINY = 1e-300
_UNLIKELY = 0.01  # of scatter by luck alone
_EXACT = 1e-12  # of squares: rounding of an exact fit
_LUCK_IS_LOW = 2.0  # so many times the variance of trials drawn again, which is too small for a least value


@dataclass(frozen=True)
class CriticalMinibatch:
    """A critical minibatch over a whole run.

    Args:
        minibatch: examples; None: not resolved.
        interval: of 90 %; a bound of None: the data give none.
        why: it is not resolved; None: it is.
        scatter, search: what the interval is made of.
        by_half: what half of the trials would have found; 0 or infinity: no bend.
        luck_percent: how far trials drawn again lie off the best one: 100 (exp(root mean square of log S) - 1).
        other_form: whether the points lie farther from the curve than luck puts them.
    """

    minibatch: float | None
    interval: Bounds
    why: str | None
    scatter: Bounds = NO_BOUNDS
    search: Bounds = NO_BOUNDS
    by_half: float | None = None
    luck_percent: float | None = None
    other_form: bool = False

    def interval_text(self, each: int = 1) -> str:
        """As in a sentence, of so many parts an example, without the unit."""
        low, high = ("no bound" if end is None else f"{each * end:.3g}" for end in self.interval)
        return f"{low} to {high}"

    @property
    def unsettled(self) -> bool:
        """Whether half of the trials would have told a quarter more, or less."""
        if self.minibatch is None or self.by_half is None:
            return False
        return not 1 / _MUCH < self.minibatch / max(self.by_half, _TINY) < _MUCH

    def as_json(self, parts: str = "", each: int = 1) -> dict[str, Any]:
        """Plain JSON, as ``study branch`` has it.

        Args:
            parts: what an example consists of, such as tokens; "": nothing that counts.
            each: of them in an example.
        """
        in_parts = {
            f"minibatch_{parts}": self.minibatch and each * self.minibatch,
            f"interval_{parts}": [end and each * end for end in self.interval],
        }
        finite = self.by_half is not None and 0 < self.by_half < math.inf
        return {
            "step": None,
            "definition": "half_efficiency",
            "minibatch": self.minibatch,
            "interval": list(self.interval),
            **(in_parts if parts else {}),
            "confidence": CONFIDENCE,
            "resolved": self.why is None,
            "why": self.why,
            "interval_scatter": list(self.scatter),
            "interval_search": list(self.search),
            "minibatch_by_half": self.by_half if finite else None,
            "luck_percent": self.luck_percent,
            "other_form": self.other_form,
        }


def half_efficiency(
    points: Sequence[Reached], doubt: str | None = None, resamples: int = RESAMPLES
) -> CriticalMinibatch:
    """The critical minibatch of points that reached the goal.

    Args:
        points: of all minibatches; those without steps do not count.
        doubt: why none is to be told, whatever the fit; None: nothing against it.
        resamples: how often the trials are drawn again.
    """
    reached = [point for point in points if point.steps is not None]
    kn, steps = [point.minibatch for point in reached], [float(point.steps or 0) for point in reached]
    earlier = [float(point.steps_before or 0) for point in reached]
    fitted = fit(kn, steps, earlier, CONFIDENCE)
    if fitted is None:
        return CriticalMinibatch(None, NO_BOUNDS, f"fewer than {FEWEST_POINTS} minibatches reached the goal")
    critical = fitted.critical_minibatch
    again = draw_again(reached, resamples)
    halves = np.log([point.steps_by_half or 0 for point in reached]) - log_width(steps, earlier) / 2
    by_half = math.exp(log_critical_of_many(kn, halves[None], np.ones((1, len(kn)), dtype=bool))[0])
    interval = _moved(_widest((critical.low, critical.high), again.interval), critical.value, by_half)
    why = doubt or _why(fitted, interval)
    if fitted.beyond and not doubt:
        interval = _one_sided(fitted, interval, kn)
    return CriticalMinibatch(
        None if why else critical.value,
        interval,
        why,
        (critical.low, critical.high),
        again.interval,
        by_half,
        100 * math.expm1(math.sqrt(again.variance)),
        again.too_little_for(fitted),
    )


@dataclass(frozen=True)
class DrawnAgain:
    """Curves of trials drawn again.

    Args:
        interval: between which 90 % of their critical minibatches lie.
        variance: the mean square of log S less that of the best trial, over the minibatches.
    """

    interval: Bounds
    variance: float

    def too_little_for(self, fitted: Hyperbola) -> bool:
        """Whether this luck would seldom leave the scatter around a fit: RSS > chi^2 variance."""
        free = fitted.points - 2
        squares = free * math.log1p(fitted.scatter_percent / 100) ** 2
        return squares > float(stats.chi2.isf(_UNLIKELY, free)) * _LUCK_IS_LOW * self.variance + _EXACT


def draw_again(points: Sequence[Reached], resamples: int) -> DrawnAgain:
    """Draw the trials again at every minibatch, with replacement, and fit the curve of their least steps.

    A curve that bends nowhere lies beyond one end of the minibatches, so these bound it; one of fewer than three points
    that reached the goal lies beyond both.

    Args:
        points: that reached the goal.
        resamples: R.
    """
    curves = [_least_again(point, resamples) for point in points]
    middles, reached = (np.stack(each, axis=1) for each in zip(*curves, strict=True))
    minibatches = [point.minibatch for point in points]
    log_critical = log_critical_of_many(minibatches, middles, reached)
    edge = int((1 - CONFIDENCE) / 2 * resamples)
    unknown = np.isnan(log_critical)
    low = float(np.sort(np.where(unknown, -math.inf, log_critical))[edge])
    high = float(np.sort(np.where(unknown, math.inf, log_critical))[resamples - 1 - edge])
    interval = (
        float(max(minibatches)) if low == math.inf else _bound(low),
        float(min(minibatches)) if high == -math.inf else _bound(high),
    )
    least = np.log([point.goals[0][0] for point in points])
    apart = np.mean((middles - least) ** 2, axis=0, where=reached)
    return DrawnAgain(interval, float(np.mean(apart)))


def _least_again(point: Reached, resamples: int) -> tuple[Values, Any]:
    """log S of the least of T trials drawn again, and whether any of them reached the goal: (R), (R)."""
    counters = np.arange(resamples * point.trials).reshape(resamples, -1)
    rank = integers(key(_TRIALS, point.minibatch), counters, point.trials).min(axis=1)
    reached = rank < len(point.goals)  # trials in order of their steps; those without come last
    steps, earlier = np.array(point.goals, dtype=float).T
    place = uniform(key(_PLACES, point.minibatch), np.arange(resamples))
    middles = np.log(steps) - log_width(steps, earlier) * place[:, None]
    return np.take_along_axis(middles, np.minimum(rank, len(steps) - 1)[:, None], axis=1)[:, 0], reached


def _widest(*intervals: Bounds) -> Bounds:
    lows, highs = zip(*intervals, strict=True)
    return None if None in lows else min(lows), None if None in highs else max(highs)


def _moved(interval: Bounds, critical: float | None, by_half: float) -> Bounds:
    """The interval, its end moved on in the direction in which more trials moved B_crit, as far once more."""
    if critical is None:
        return interval
    low, high = interval
    if by_half > critical:
        return _bound(-math.inf if low is None else math.log(low * critical) - math.log(by_half)), high
    return low, _bound(math.inf if high is None or by_half == 0 else math.log(high * critical) - math.log(by_half))


def _bound(log_value: float) -> float | None:
    return math.exp(log_value) if math.isfinite(log_value) else None


def _why(fitted: Hyperbola, interval: Bounds) -> str | None:
    """Why there is no value, or none that the data carry."""
    if fitted.beyond:
        side = "below the smallest" if fitted.beyond == "below" else "above the largest"
        return f"{side} minibatch that reached the goal: a bound, no measurement"
    return "no bound on either side" if interval == NO_BOUNDS else None


def _one_sided(fitted: Hyperbola, interval: Bounds, minibatches: Sequence[int]) -> Bounds:
    """What is known of a value beyond the minibatches: it lies below, or above, at least where they end."""
    low, high = interval
    if fitted.beyond == "below":
        return None, None if high is None else max(high, float(min(minibatches)))
    return None if low is None else min(low, float(max(minibatches))), None
