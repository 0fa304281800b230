"""Errors of predictions, their percentiles, and how sure those are, by drawing whole series anew."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from batchscale.cost.speeds.series import Floats

_DRAWS, _SEED = 1000, 17
_ENDS = (5, 95)


@dataclass(frozen=True)
class Predicted:
    """One point: a measured speed, and what the forms say of it (examples a second of all devices together).

    Args:
        devices: of the point.
        measured: its speed.
        predicted: by the small form, the median.
        interval: lower and upper end, of 90 %.
        baseline: by the curve through two points.
        rule: by the rule of thumb.
    """

    devices: int
    measured: float
    predicted: float
    interval: tuple[float, float]
    baseline: float
    rule: float

    @property
    def error_percent(self) -> float:
        """100 |predicted / measured - 1|."""
        return error_percent(self.predicted, self.measured)

    @property
    def baseline_error_percent(self) -> float:
        """The same of the baseline."""
        return error_percent(self.baseline, self.measured)

    @property
    def rule_error_percent(self) -> float:
        """The same of the rule of thumb."""
        return error_percent(self.rule, self.measured)

    @property
    def covered(self) -> bool:
        """Whether the measured speed lies in the interval."""
        return self.interval[0] <= self.measured <= self.interval[1]


def error_percent(predicted: float, measured: float) -> float:
    """100 |predicted / measured - 1|; infinite where nothing could be predicted."""
    return 100 * abs(predicted / measured - 1) if np.isfinite(predicted) else float("inf")


Points = Sequence[Predicted]


def median_error(points: Points) -> float:
    """Percent."""
    return float(np.median([point.error_percent for point in points]))


def p90_error(points: Points) -> float:
    """Percent: nine points of ten have at most this error."""
    return float(np.percentile([point.error_percent for point in points], 90))


def coverage(points: Points) -> float:
    """Percent of the points that lie in their interval."""
    return 100 * float(np.mean([point.covered for point in points]))


def is_worse(points: Points) -> bool:
    """Whether the series' median error is above that of the baseline."""
    return median_error(points) > float(np.median([point.baseline_error_percent for point in points]))


def percentiles(errors: Sequence[float]) -> dict[str, float]:
    """Median and 90th percentile, under the names of the document."""
    return {
        "median_error_percent": float(np.median(errors)),
        "p90_error_percent": float(np.percentile(errors, 90)),
    }


def resampled(series: Sequence[Points], score: Callable[[Points], float]) -> list[float]:
    """The 90 % interval of a score over points, by drawing as many series with replacement."""
    generator = np.random.default_rng(_SEED)
    draws: Floats = np.array(
        [
            score([point for drawn in generator.integers(len(series), size=len(series)) for point in series[drawn]])
            for _ in range(_DRAWS)
        ]
    )
    return [float(end) for end in np.percentile(draws, _ENDS)]


def summary(series: Sequence[Points]) -> dict[str, Any]:
    """All scores of the predicted points, each with its interval; None where there is no point."""
    points = [point for its in series for point in its]
    names: dict[str, Callable[[Points], float]] = {
        "median_error": median_error, "p90_error": p90_error, "coverage": coverage,
    }  # fmt: skip
    scores: dict[str, Any] = {}
    for name, score in names.items():
        scores[f"{name}_percent"] = score(points) if points else None
        scores[f"{name}_interval"] = resampled(series, score) if points else None
    worse = sum(map(is_worse, series))
    scores["worse_than_baseline"] = {
        "series": worse, "of": len(series), "percent": 100 * worse / len(series) if series else None,
    }  # fmt: skip
    empty: dict[str, Any] = {"median_error_percent": None, "p90_error_percent": None}
    scores["baseline"] = percentiles([p.baseline_error_percent for p in points]) if points else empty
    scores["rule"] = percentiles([p.rule_error_percent for p in points]) if points else empty
    return scores
