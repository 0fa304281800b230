"""The hyperbola of steps against the minibatch, fitted, with confidence intervals.

S(B) = S_min (1 + B_crit / B),   E(B) = S(B) B = E_min (1 + B / B_crit),   E_min = S_min B_crit

The goal was passed after the last evaluation above it, at S_before, and at S at the latest. So least squares of the
middle, log S - w / 2 with w = log(S / S_before): given B_crit, log S_min is the mean of that less log(1 + B_crit / B),
and one number is searched. Intervals are those of the likelihood, projected on each number:

all (S_min, B_crit) with RSS <= RSS_min + t^2 max(RSS_min / (n - 2), q),   q = mean(w^2) / 12

q is the variance of what evaluations round away, spread evenly: where the points lie on a curve by it, RSS is silent.
Cost: n points times a few thousand values of B_crit. Source: McCandlish et al. 2018, "An Empirical Model of Large-Batch
Training", section 2.3 and appendix D (q is ours).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import optimize, stats

FEWEST_POINTS = 4  # two numbers are fitted: fewer leave no scatter to judge them by
_CONFIDENCE = 0.95
FEWEST_DRAWN = 3  # of a curve drawn again, whose own scatter is not asked for
_BEYOND = math.log(1e3)  # how far beyond the studied minibatches B_crit is looked for
_GRID = 4001
_COARSE_GRID = 1001  # of curves drawn again: 2 % apart, before the parabola through the lowest three
_AT_END = 1e-3  # of log B_crit: nearer to the end of the search than this, the minimum lies at the end
Values = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Interval:
    """A number and its confidence interval, of 95 % where nothing else is said.

    Args:
        value: None: not seen, the minibatches studied give a bound at most.
        low, high: a bound of None: the data give none.
    """

    value: float | None
    low: float | None
    high: float | None

    @property
    def unbounded(self) -> bool:
        """Whether the data leave it open on both sides."""
        return self.low is None and self.high is None

    def times(self, factor: float) -> Interval:
        """In parts of examples, so many of them in each: a critical minibatch in tokens."""
        return Interval(*(None if end is None else factor * end for end in (self.value, self.low, self.high)))

    def text(self, name: str, unit: str) -> str:
        """As in a sentence."""
        if self.value is None:
            sides = (("above", self.low), ("below", self.high))
            bound = next((f" ({side} {end:.3g} {unit})" for side, end in sides if end is not None), "")
            return f"{name} not seen{bound}"
        if self.unbounded:
            return f"{name} not told (no bound on either side)"
        low = "no bound" if self.low is None else f"{self.low:.3g}"
        high = "no bound" if self.high is None else f"{self.high:.3g}"
        return f"{name} = {self.value:.3g} ({low} to {high}) {unit}"


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
    beyond: Literal["below", "above"] | None

    def steps(self, minibatch: float) -> float:
        """S(B) = S_min + E_min / B; one that is not seen is too small to show."""
        return (self.steps_min.value or 0.0) + (self.images_min.value or 0.0) / minibatch

    def as_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)


@dataclass(frozen=True)
class _Profile:
    """The least squares of every B_crit.

    Args:
        images: B (n).
        middle: log S - w / 2 (n).
    """

    images: Values
    middle: Values

    @property
    def ends(self) -> tuple[float, float]:
        """Of the search, log B_crit."""
        return math.log(self.images.min()) - _BEYOND, math.log(self.images.max()) + _BEYOND

    def log_steps_min(self, log_critical: Values) -> Values:
        """The best log S_min at each log B_crit."""
        return np.asarray(np.mean(self.middle - np.log1p(np.exp(log_critical)[..., None] / self.images), axis=-1))

    def squares(self, log_critical: Any) -> Any:
        """RSS at each log B_crit."""
        log_b = np.asarray(log_critical, dtype=float)
        curve = self.log_steps_min(log_b)[..., None] + np.log1p(np.exp(log_b)[..., None] / self.images)
        return np.sum((self.middle - curve) ** 2, axis=-1)


def log_width(steps: Sequence[float], steps_before: Sequence[float]) -> Values:
    """w = log(S / S_before), what evaluations round away; of an S_before of 0, log 2 (n)."""
    last = np.array(steps, dtype=float)
    return np.asarray(np.log(last / np.maximum(np.array(steps_before, dtype=float), last / 2)))


def fit(
    minibatches: Sequence[int],
    steps: Sequence[float],
    steps_before: Sequence[float],
    confidence: float = _CONFIDENCE,
) -> Hyperbola | None:
    """The hyperbola through (minibatch, steps), each point with the same relative error.

    Args:
        minibatches: B, images, each once.
        steps: S, to the goal: of the first evaluation below it.
        steps_before: of the evaluation before, above it; 0: half of S counts, for its logarithm.
        confidence: of the intervals.

    Returns:
        The fit; None for fewer than four points.

    Source: McCandlish et al. 2018, appendix D.
    """
    if len(minibatches) < FEWEST_POINTS:
        return None
    images, last = np.array(minibatches, dtype=float), np.array(steps, dtype=float)
    width = log_width(steps, steps_before)
    profile = _Profile(images, np.log(last) - width / 2)
    best, free = _minimum(profile.squares, np.linspace(*profile.ends, _GRID)), len(images) - 2
    least, rounded = float(profile.squares(best)), float(np.mean(width**2)) / 12
    quantile = float(stats.t.ppf(0.5 + confidence / 2, free))
    allowed = least + quantile**2 * max(least / free, rounded) + 1e-24  # rounding of an exact fit
    critical = math.exp(best)
    return Hyperbola(
        *_intervals(profile, best, allowed),
        100 * math.expm1(math.sqrt(least / free)),
        len(images),
        "below" if critical < images.min() else "above" if critical > images.max() else None,
    )


def log_critical_of_many(minibatches: Sequence[int], middles: Values, reached: npt.NDArray[np.bool_]) -> Values:
    """log B_crit of many curves at once, by the least squares of ``fit``.

    RSS = sum_i w_i (y_i - f_i)^2 - (sum_i w_i (y_i - f_i))^2 / sum_i w_i,   f = log(1 + B_crit / B), w: reached or not

    Args:
        minibatches: B, images (n).
        middles: y, log steps (R, n); any number where the goal was not reached.
        reached: which of them count (R, n).

    Returns:
        (R); -inf and inf where the minimum lies at an end of the search, nan for fewer than three points.
    """
    profile = _Profile(np.array(minibatches, dtype=float), np.zeros(len(minibatches)))
    grid = np.linspace(*profile.ends, _COARSE_GRID)
    curve = np.log1p(np.exp(grid)[:, None] / profile.images)
    weights, count = reached.astype(float), np.maximum(reached.sum(axis=1, keepdims=True), 1)
    y = np.where(reached, middles, 0.0)
    y = (y - y.sum(axis=1, keepdims=True) / count) * weights  # without its mean: fewer digits cancel
    squares = weights @ (curve**2).T - 2 * y @ curve.T - (weights @ curve.T) ** 2 / count  # without y's own
    near = np.argmin(squares, axis=1)
    inside = np.clip(near, 1, len(grid) - 2)
    left, lowest, right = (np.take_along_axis(squares, (inside + i)[:, None], 1)[:, 0] for i in (-1, 0, 1))
    bend = np.maximum(left - 2 * lowest + right, np.finfo(float).tiny)
    log_critical = grid[inside] + np.clip((left - right) / (2 * bend), -1, 1) * (grid[1] - grid[0])
    log_critical[near == 0], log_critical[near == len(grid) - 1] = -math.inf, math.inf
    log_critical[reached.sum(axis=1) < FEWEST_DRAWN] = math.nan
    return np.asarray(log_critical)


def _intervals(profile: _Profile, best: float, allowed: float) -> tuple[Interval, Interval, Interval]:
    """S_min, B_crit and E_min, with what the allowed sum of squares leaves them."""
    ends = profile.ends
    low, high = (_crossing(profile.squares, allowed, best, end) for end in ends)
    inside = np.linspace(ends[0] if low is None else low, ends[1] if high is None else high, _GRID)
    half = np.sqrt(np.maximum(allowed - profile.squares(inside), 0) / len(profile.images))
    floor = profile.log_steps_min(inside)
    images_min = floor + inside
    at_best = float(profile.log_steps_min(np.asarray(best)))
    steps = _interval(at_best, None if high is None else (floor - half).min(), (floor + half).max())
    critical = _interval(best, low, high)
    least = _interval(at_best + best, None if low is None else (images_min - half).min(), (images_min + half).max())
    if best - ends[0] < _AT_END:
        within = None if high is None else max(math.exp(high), float(profile.images.min()))
        return steps, Interval(None, None, within), Interval(None, None, least.high)
    if ends[1] - best < _AT_END:
        beyond = None if low is None else min(math.exp(low), float(profile.images.max()))
        return Interval(None, None, steps.high), Interval(None, beyond, None), least
    return steps, critical, least


def _minimum(squares: Any, grid: npt.NDArray[np.floating[Any]]) -> float:
    near = int(np.argmin(squares(grid)))
    around = grid[max(near - 1, 0)], grid[min(near + 1, len(grid) - 1)]
    return float(optimize.minimize_scalar(squares, bounds=around, method="bounded", options={"xatol": 1e-10}).x)


def _crossing(squares: Any, allowed: float, best: float, end: float) -> float | None:
    """Where the sum of squares leaves the allowed on the way to an end; None: never."""
    if squares(end) <= allowed:
        return None
    return float(optimize.brentq(lambda log_b: squares(log_b) - allowed, best, end))


def _interval(log_value: float, low: Any, high: Any) -> Interval:
    return Interval(
        math.exp(log_value),
        None if low is None else math.exp(min(low, log_value)),
        None if high is None else math.exp(max(high, log_value)),
    )
