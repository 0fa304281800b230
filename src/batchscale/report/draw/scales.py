"""Axes as numbers: where a value lies, which values get a tick, and how they are written.

linear: place = start + (end - start) (v - low) / (high - low);  log2, log10: the same of log v
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from matplotlib.ticker import LogLocator, MaxNLocator

from batchscale.records.findings import Scale

_PAD = 0.04
"""Of the axis, between its ends and the outermost values."""
_FROM_ZERO = 0.5
"""A linear axis begins at 0 where the smallest value is below this part of the largest."""
_PREFIXED_FROM = 1 << 17
"""Powers of two are written with Ki and Mi where the axis goes so far."""
_PREFIXES = ((1 << 30, "Gi"), (1 << 20, "Mi"), (1 << 10, "Ki"))
_LINEAR_BELOW = 3.0
"""A log axis whose ends differ by a smaller factor has linear ticks: it is nearly linear."""
_WITHIN = {2: ((1.0,), (1.0, 1.5)), 10: ((1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 5.0, 7.0))}
"""By the base: what the ticks between two powers are multiples of, sparse and dense."""
_ALL = 4096
"""More ticks than any axis has powers and multiples."""
_FEWEST = 3
"""Ticks of a log axis, before it takes the dense ones."""
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Ruler:
    """One axis of a drawn figure.

    Args:
        scale: linear, log2 or log10.
        low, high: the values at its ends; low < high, both above 0 on a log scale.
        start, end: where these lie, in units of the drawing.
    """

    scale: Scale
    low: float
    high: float
    start: float
    end: float

    def place(self, value: float) -> float:
        """Where a value lies."""
        low, high, stretched = (_stretched(self.scale, v) for v in (self.low, self.high, value))
        return self.start + (self.end - self.start) * (stretched - low) / (high - low)

    def ticks(self, most: int) -> list[tuple[float, str]]:
        """Round values for ticks, at most so many, and their words."""
        if self.scale == "linear":
            return self.own_ticks(linear_ticks(self.low, self.high, most))
        return self.own_ticks(log_ticks(self.low, self.high, most, 2 if self.scale == "log2" else 10))

    def own_ticks(self, values: Sequence[float]) -> list[tuple[float, str]]:
        """These values, and their words."""
        return list(zip(values, words(values, self.scale), strict=True))


def shown(scale: Scale, value: float | None) -> bool:
    """Whether a value has a place on such an axis."""
    return value is not None and math.isfinite(value) and (scale == "linear" or value > 0)


def ruler(scale: Scale, values: Iterable[float], start: float, end: float, *, zero: bool = True) -> Ruler:
    """The axis that shows these values.

    Args:
        values: those with a place on it.
        zero: begin a linear axis at 0 where that costs little.
    """
    placed = list(values) or [1.0]
    low, high = _stretched(scale, min(placed)), _stretched(scale, max(placed))
    if low == high:
        margin = (abs(low) or 1.0) / 2 if scale == "linear" else 0.5
        low, high = low - margin, high + margin
    pad = _PAD * (high - low)
    from_zero = scale == "linear" and zero and 0 <= low <= _FROM_ZERO * high
    low, high = (0.0 if from_zero else low - pad), high + pad
    return Ruler(scale, _plain(scale, low), _plain(scale, high), start, end)


def _stretched(scale: Scale, value: float) -> float:
    return value if scale == "linear" else math.log2(value)


def _plain(scale: Scale, value: float) -> float:
    return value if scale == "linear" else float(2.0**value)


def linear_ticks(low: float, high: float, most: int) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten within the range, at most so many."""
    margin = 1e-9 * (high - low)  # of rounding: a tick at the very end counts as within
    for intervals in (most, most - 1):  # where ticks lie on both ends, they are one more than the intervals
        values = MaxNLocator(intervals, steps=[1, 2, 5, 10], min_n_ticks=1).tick_values(low, high)
        ticks = [_short(value) for value in values if low - margin <= value <= high + margin]
        if len(ticks) <= most:
            break
    return ticks


def log_ticks(low: float, high: float, most: int, base: int) -> list[float]:
    """1, 2, 5 times powers of ten, or powers of two; denser where those are few, of too many powers each n-th."""
    if high < _LINEAR_BELOW * low:
        return [value for value in linear_ticks(low, high, most) if value > 0]
    sparse, dense = (_log_ticks(low, high, base, multiples) for multiples in _WITHIN[base])
    if len(sparse) <= most:
        return sparse if len(sparse) >= _FEWEST or len(dense) > most else dense
    return _log_ticks(low, high, base, (1.0,), most)


def _log_ticks(low: float, high: float, base: int, multiples: Sequence[float], most: int = _ALL) -> list[float]:
    """The multiples of powers within the range; of powers alone each n-th, so that they are at most so many."""
    ticks = [
        float(value)
        for multiple in multiples  # each for itself: of several, few of them in range, the locator makes linear ticks
        for value in LogLocator(float(base), (multiple,), numticks=most).tick_values(low, high)
        if low <= value <= high
    ]
    return sorted(ticks if base == 2 else map(_short, ticks))


def _short(value: float) -> float:
    """Without the rounding of the locators' last digit: 0.3, not 0.30000000000000004."""
    return float(f"{value:.12g}")


def words(values: Sequence[float], scale: Scale = "linear") -> list[str]:
    """Numbers as the labels of one axis, all in one manner."""
    top = max(map(abs, values), default=0.0)
    if scale == "log2" and top >= _PREFIXED_FROM:
        return [_prefixed(value) for value in values]
    return [number(value, 3 if scale == "log2" and value < 1 else 6) for value in values]


def _prefixed(value: float) -> str:
    size, prefix = next(((size, prefix) for size, prefix in _PREFIXES if value >= size), (1, ""))
    return f"{value / size:.3g} {prefix}".rstrip()


def number(value: float, digits: int = 4) -> str:
    """A number for reading: 0.00313, 2,048, 3 × 10⁻⁷."""
    if value == 0:
        return "0"
    exponent = math.floor(math.log10(abs(value)))
    if exponent < -4 or exponent > 8:
        mantissa, _, power = f"{value:.{digits - 1}e}".partition("e")
        short = f"{float(mantissa):g}"
        raised = f"10{str(int(power)).translate(_SUPERSCRIPTS)}"
        return raised if short == "1" else f"{short} \N{MULTIPLICATION SIGN} {raised}"
    rounded = float(f"{value:.{digits}g}") if exponent < digits else float(round(value))
    whole, _, fraction = f"{rounded:.{max(digits - 1 - exponent, 0)}f}".partition(".")
    grouped = f"{int(whole):,}" if len(whole.lstrip("-")) > 4 else whole
    fraction = fraction.rstrip("0")
    return f"{grouped}.{fraction}" if fraction else grouped
