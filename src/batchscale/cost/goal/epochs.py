"""`plan epochs`: how much data a goal needs at each minibatch, and whether the form that says so holds.

E(B) = E_min (1 + B / B_crit), least squares of log E: the hyperbola of steps to a target, told in data.

Where it is judged (four minibatches or more), it is refused when
1. its points scatter by more than 10 % around it,
2. half of them lie more than 10 % from what the others predict (leave-one-out), or
3. a free exponent, 1 + (B / B_crit)^p, lies outside 0.5 to 2 with its whole 95 % interval: another form holds.

10 %: twice the scatter that repeats of one minibatch show; a plan that is off by more decides nothing.
Source of the form: McCandlish et al. 2018, section 2.3.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from scipy import stats

from batchscale.cost.speeds.series import Floats
from batchscale.cost.table import CsvRow, read_rows
from batchscale.errors import DataError
from batchscale.hyperbola import FEWEST_POINTS, Hyperbola, fit, log_critical_of_many

DATA_COLUMNS = ("mean_to_target", "epochs_mean")
MOST_SCATTER_PERCENT = MOST_ERROR_PERCENT = 10.0
EXPONENTS = (0.5, 2.0)
_EXPONENT_GRID = np.round(np.linspace(0.2, 4.0, 39), 1)
_CONFIDENCE = 0.95
_FEWEST = 3  # points that log_critical_of_many takes


@dataclass(frozen=True)
class Workload:
    """Data needed to a goal at several minibatches.

    Args:
        benchmark: its name.
        unit: of the data, "" where the table does not say.
        minibatches: B, rising.
        needed: E at each, in the unit.
    """

    benchmark: str
    unit: str
    minibatches: tuple[int, ...]
    needed: tuple[float, ...]


@dataclass(frozen=True)
class EpochsFit:
    """The form fitted to a workload.

    Args:
        workload: what it was fitted to.
        critical: B_crit; None: one minibatch, or no bend within a thousand times the minibatches studied.
        needed_min: E_min; None as above.
        hyperbola: with intervals; None for fewer than four minibatches.
        left_out: E at each minibatch by the fit of all others; () for fewer than four.
        exponent: p, with the ends of its 95 % interval; None for fewer than four.
    """

    workload: Workload
    critical: float | None
    needed_min: float | None
    hyperbola: Hyperbola | None
    left_out: tuple[float, ...]
    exponent: tuple[float, float, float] | None

    @property
    def errors_percent(self) -> list[float]:
        """Leave-one-out, of each point."""
        return [100 * abs(p / e - 1) for p, e in zip(self.left_out, self.workload.needed, strict=bool(self.left_out))]

    @property
    def leave_one_out_median_percent(self) -> float | None:
        """None: not judged."""
        return statistics.median(self.errors_percent) if self.left_out else None

    @property
    def refusal(self) -> str | None:
        """Why the form does not hold, in words; None: it does, or there are too few points to judge."""
        if self.hyperbola is None or self.exponent is None:
            return None
        scatter, errors = self.hyperbola.scatter_percent, statistics.median(self.errors_percent)
        if scatter > MOST_SCATTER_PERCENT:
            return f"the points scatter by {scatter:.0f} % around the curve, more than {MOST_SCATTER_PERCENT:g} %"
        if errors > MOST_ERROR_PERCENT:
            return (
                f"half of the points lie {errors:.0f} % or more from what the others predict, more than "
                f"{MOST_ERROR_PERCENT:g} %"
            )
        p, low, high = self.exponent
        if low > EXPONENTS[1] or high < EXPONENTS[0]:
            return f"the data want 1 + (B / B_crit)^{p:.2g} ({low:.2g} to {high:.2g}), far from an exponent of 1"
        return None


def read_workloads(path: Path) -> list[Workload]:
    """The workloads of a table: columns benchmark, minibatch, mean_to_target, and unit where there is one.

    Raises:
        DataError: the file or a row cannot be used.
    """
    points: dict[str, dict[int, list[float]]] = {}
    units: dict[str, str] = {}
    for row in read_rows(path, ("benchmark", "minibatch"), DATA_COLUMNS):
        name, unit = row.text("benchmark"), row.text("unit")
        if not name:
            raise DataError(f"{row.place}: benchmark is missing: must name the workload; add it")
        if unit != units.setdefault(name, unit):
            raise DataError(
                f"{row.place}: unit={unit}, and {units[name]} in another row of {name}; convert one of them"
            )
        points.setdefault(name, {}).setdefault(row.count("minibatch"), []).append(_needed(row))
    return [
        Workload(name, units[name], tuple(sorted(by)), tuple(statistics.median(by[b]) for b in sorted(by)))
        for name, by in points.items()
    ]


def _needed(row: CsvRow) -> float:
    return row.positive(next(column for column in DATA_COLUMNS if column in row.cells))


def fit_epochs(workload: Workload) -> EpochsFit:
    """Fit the form, and test it where there are points enough."""
    minibatches, log_needed = np.array(workload.minibatches, dtype=float), np.log(workload.needed)
    count = len(minibatches)
    if count < FEWEST_POINTS:
        log_critical, log_min = _fitted(minibatches, log_needed)
        bends = count > 1 and math.isfinite(log_critical)
        return EpochsFit(
            workload, math.exp(log_critical) if bends else None, math.exp(log_min) if bends else None, None, (), None
        )
    steps = [e / b for e, b in zip(workload.needed, workload.minibatches, strict=True)]
    hyperbola = fit(workload.minibatches, steps, steps)
    assert hyperbola is not None  # it has points enough
    return EpochsFit(
        workload,
        hyperbola.critical_minibatch.value,
        hyperbola.images_min.value,
        hyperbola,
        _left_out(minibatches, log_needed),
        _exponent(minibatches, log_needed),
    )


def _critical(minibatches: Floats, log_needed: Floats, counted: Floats) -> Floats:
    """log B_crit by those points of each curve that count (R, n) -> (R)."""
    counts = cast("Sequence[int]", minibatches)  # it takes any numbers above 0: powers of minibatches, too
    log_steps = np.broadcast_to(log_needed - np.log(minibatches), counted.shape)
    return np.asarray(log_critical_of_many(counts, log_steps, counted.astype(bool)))


def _bend(minibatches: Floats, log_critical: float) -> Floats:
    """log(1 + B / B_crit) (n)."""
    return np.asarray(np.logaddexp(0, np.log(minibatches) - log_critical))


def _fitted(minibatches: Floats, log_needed: Floats) -> tuple[float, float]:
    """log B_crit and log E_min by all points; two points count twice, which moves no least squares."""
    if len(minibatches) < _FEWEST:
        minibatches, log_needed = np.repeat(minibatches, _FEWEST), np.repeat(log_needed, _FEWEST)
    (log_critical,) = _critical(minibatches, log_needed, np.ones((1, len(minibatches))))
    return float(log_critical), _level(minibatches, log_needed, float(log_critical))


def _level(minibatches: Floats, log_needed: Floats, log_critical: float) -> float:
    """log E_min at this B_crit: of one at an end of the search, a constant or a line through 0."""
    return float(np.mean(log_needed - _bend(minibatches, log_critical))) if math.isfinite(log_critical) else math.nan


def _left_out(minibatches: Floats, log_needed: Floats) -> tuple[float, ...]:
    """E at each minibatch by the fit of all others."""
    predicted = []
    for place, log_critical in enumerate(_critical(minibatches, log_needed, 1 - np.eye(len(minibatches)))):
        others = np.arange(len(minibatches)) != place
        bend = _limit(minibatches, float(log_critical))
        predicted.append(math.exp(bend[place] + np.mean((log_needed - bend)[others])))
    return tuple(predicted)


def _limit(minibatches: Floats, log_critical: float) -> Floats:
    """log(1 + B / B_crit) up to a constant, also where B_crit lies at an end of the search: 0, or log B."""
    if math.isfinite(log_critical):
        return _bend(minibatches, log_critical)
    return np.zeros(len(minibatches)) if log_critical > 0 else np.asarray(np.log(minibatches))


def _exponent(minibatches: Floats, log_needed: Floats) -> tuple[float, float, float]:
    """p of 1 + (B / B_crit)^p, and its 95 % interval: the values whose sum of squares t allows.

    The form is a hyperbola in B^p, so that the same fit finds B_crit for each p.
    """
    squares = []
    for p in _EXPONENT_GRID:
        powers = (minibatches / minibatches[0]) ** p
        (log_critical,) = _critical(powers, log_needed, np.ones((1, len(powers))))
        residuals = log_needed - _limit(powers, float(log_critical))
        squares.append(float(np.var(residuals)) * len(powers))
    least = min(squares)
    free = max(len(minibatches) - 3, 1)
    allowed = least * (1 + float(stats.t.ppf(0.5 + _CONFIDENCE / 2, free)) ** 2 / free) + 1e-12
    inside = _EXPONENT_GRID[np.array(squares) <= allowed]
    return float(_EXPONENT_GRID[int(np.argmin(squares))]), float(inside[0]), float(inside[-1])
