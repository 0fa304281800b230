"""Axes as numbers: where a value lies, which values get a tick, and how they are written.

linear: place = start + (end - start) (v - low) / (high - low);  log2, log10: the same of log v
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

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
        low, high, at = (_stretched(self.scale, v) for v in (self.low, self.high, value))
        return self.start + (self.end - self.start) * (at - low) / (high - low)

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
    there = list(values) or [1.0]
    low, high = _stretched(scale, min(there)), _stretched(scale, max(there))
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
    power = 10.0 ** (math.floor(math.log10((high - low) / most)) - 1)
    for size in (1, 2, 5, 10, 20, 50, 100, 200):
        step = size * power
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first + 1 <= most:
            break
    return [float(f"{number * step:.12g}") for number in range(first, last + 1)]


def log_ticks(low: float, high: float, most: int, base: int) -> list[float]:
    """1, 2, 5 times powers of ten, or powers of two, denser where those are few; of many powers every so manieth."""
    if high < _LINEAR_BELOW * low:
        return [value for value in linear_ticks(low, high, most) if value > 0]
    exponents = range(math.floor(math.log(low, base)) - 1, math.ceil(math.log(high, base)) + 2)
    sparse, dense = (
        [v for e in exponents for m in within if low <= (v := _times_power(m, base, e)) <= high]
        for within in _WITHIN[base]
    )
    if len(sparse) <= most:
        return sparse if len(sparse) >= _FEWEST or len(dense) > most else dense
    powers = [(e, v) for e in exponents if low <= (v := _times_power(1.0, base, e)) <= high]
    every = math.ceil(len(powers) / most)
    return [v for e, v in powers if e % every == 0]


def _times_power(value: float, base: int, exponent: int) -> float:
    """value base^exponent, rounded once."""
    return float(f"{value}e{exponent}") if base == 10 else math.ldexp(value, exponent)


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
