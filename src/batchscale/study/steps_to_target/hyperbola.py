"""The hyperbola of steps against the minibatch, fitted, with confidence intervals.

S(B) = S_min (1 + B_crit / B),   E(B) = S(B) B = E_min (1 + B / B_crit),   E_min = S_min B_crit

Least squares of log S: given B_crit, log S_min is the mean of log S - log(1 + B_crit / B), so one number is searched.
Intervals are those of the likelihood: all (S_min, B_crit) with RSS <= RSS_min (1 + t^2 / (n - 2)), projected on each.

Cost: n points times a few thousand values of B_crit. Source: McCandlish et al. 2018, "An Empirical Model of Large-Batch
Training", section 2.3 and appendix D.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import optimize, stats

FEWEST_POINTS = 4  # two numbers are fitted: fewer leave no scatter to judge them by
_CONFIDENCE = 0.95
_BEYOND = math.log(1e6)  # how far beyond the studied minibatches B_crit is looked for
_GRID = 4001


@dataclass(frozen=True)
class Interval:
    """A number and its 95 % confidence interval; a bound of None: the data give none."""

    value: float
    low: float | None
    high: float | None

    def text(self) -> str:
        """As in a sentence."""
        low = "no bound" if self.low is None else f"{self.low:.3g}"
        high = "no bound" if self.high is None else f"{self.high:.3g}"
        return f"{self.value:.3g} ({low} to {high})"


@dataclass(frozen=True)
class Hyperbola:
    """What was fitted.

    Args:
        steps_min: S_min, the steps that no minibatch goes below.
        critical_minibatch: B_crit, images; twice S_min steps and twice E_min images are needed there.
        images_min: E_min, the images that no minibatch goes below.
        scatter_percent: of the steps around the curve: 100 (exp(standard deviation of log S) - 1).
        points: n.
        beyond: "below" or "above" where B_crit lies outside the studied minibatches, which then only bound it.
    """

    steps_min: Interval
    critical_minibatch: Interval
    images_min: Interval
    scatter_percent: float
    points: int
    beyond: str | None

    def steps(self, minibatch: float) -> float:
        """S(B)."""
        return self.steps_min.value * (1 + self.critical_minibatch.value / minibatch)

    def as_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)


def fit(minibatches: Sequence[int], steps: Sequence[float]) -> Hyperbola | None:
    """The hyperbola through (minibatch, steps), each point with the same relative error.

    Args:
        minibatches: B, images, each once.
        steps: S, to the goal.

    Returns:
        The fit; None for fewer than four points.

    Source: McCandlish et al. 2018, appendix D.
    """
    if len(minibatches) < FEWEST_POINTS:
        return None
    images, measured = np.array(minibatches, dtype=float), np.log(np.array(steps, dtype=float))

    def log_steps_min(log_critical: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.floating[Any]]:
        return np.asarray(np.mean(measured - np.log1p(np.exp(log_critical)[..., None] / images), axis=-1))

    def squares(log_critical: Any) -> Any:
        at = np.asarray(log_critical, dtype=float)
        curve = log_steps_min(at)[..., None] + np.log1p(np.exp(at)[..., None] / images)
        return np.sum((measured - curve) ** 2, axis=-1)

    ends = math.log(images.min()) - _BEYOND, math.log(images.max()) + _BEYOND
    best = _minimum(squares, np.linspace(*ends, _GRID))
    least, free = float(squares(best)), len(images) - 2
    allowed = (
        least * (1 + float(stats.t.ppf(0.5 + _CONFIDENCE / 2, free)) ** 2 / free) + 1e-24
    )  # rounding of an exact fit
    low, high = (_crossing(squares, allowed, best, end) for end in ends)
    inside = np.linspace(ends[0] if low is None else low, ends[1] if high is None else high, _GRID)
    half = np.sqrt(np.maximum(allowed - squares(inside), 0) / len(images))
    floor, images_min = log_steps_min(inside), log_steps_min(inside) + inside
    at_best = float(log_steps_min(np.asarray(best)))
    critical = math.exp(best)
    return Hyperbola(
        _interval(at_best, None if high is None else (floor - half).min(), (floor + half).max()),
        _interval(best, low, high),
        _interval(at_best + best, None if low is None else (images_min - half).min(), (images_min + half).max()),
        100 * math.expm1(math.sqrt(least / free)),
        len(images),
        "below" if critical < images.min() else "above" if critical > images.max() else None,
    )


def _minimum(squares: Any, grid: npt.NDArray[np.floating[Any]]) -> float:
    near = int(np.argmin(squares(grid)))
    around = grid[max(near - 1, 0)], grid[min(near + 1, len(grid) - 1)]
    return float(optimize.minimize_scalar(squares, bounds=around, method="bounded", options={"xatol": 1e-10}).x)


def _crossing(squares: Any, allowed: float, best: float, end: float) -> float | None:
    """Where the sum of squares leaves the allowed on the way to an end; None: never."""
    if squares(end) <= allowed:
        return None
    return float(optimize.brentq(lambda at: squares(at) - allowed, best, end))


def _interval(log_value: float, low: Any, high: Any) -> Interval:
    return Interval(
        math.exp(log_value),
        None if low is None else math.exp(min(low, log_value)),
        None if high is None else math.exp(max(high, log_value)),
    )
