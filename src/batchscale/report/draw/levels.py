"""The levels of a surface: round values, the same for the same limits; and a shade for each band between two."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from batchscale.records.findings import Surface
from batchscale.report.draw.scales import linear_ticks, log_ticks, shown

SHADES = 13
"""Of a page's style, z0 (lowest) .. z12."""
_MOST = SHADES - 1  # levels
_END = 1e-6  # a level at the very end would bound a band of nothing

Grid = npt.NDArray[np.float64]


def span(surface: Surface) -> tuple[float, float]:
    """What the levels cover: the limits, or from the lowest to the highest value that has a place."""
    if surface.limits is not None:
        return surface.limits
    values = [value for row in surface.values for value in row if value is not None and shown(surface.scale, value)]
    return (min(values), max(values)) if values else (1.0, 1.0)


def levels_of(surface: Surface) -> list[float]:
    """Rising, between the ends; none where all values are one."""
    low, high = span(surface)
    if not low < high:
        return []
    ticks = linear_ticks(low, high, _MOST) if surface.scale == "linear" else log_ticks(low, high, _MOST, 10)
    margin = _END * (high - low) if surface.scale == "linear" else _END * low
    return [level for level in ticks if low + margin < level < high - margin]


def heights(surface: Surface) -> Grid:
    """The values (rows, columns) as they are drawn, logarithms on a log scale; NaN where there is none."""
    return np.array(
        [
            [height(surface, value) if value is not None and shown(surface.scale, value) else math.nan for value in row]
            for row in surface.values
        ]
    )


def height(surface: Surface, value: float) -> float:
    """One value as it is drawn."""
    return math.log10(value) if surface.scale == "log10" else value


def shade(band: int, levels: Sequence[float]) -> str:
    """The class of a band, of len(levels) + 1 from the lowest on."""
    return f"z{round(band * (SHADES - 1) / max(len(levels), 1))}"
