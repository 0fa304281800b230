"""A surface as a relief, seen from where both axes end: cells from back to front, levels on the walls behind.

across = C + (u - v) A;  down = D + (u + v) B - h H,  u, v, h in [0, 1]
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree as ET

import numpy as np

from batchscale.records.findings import Figure, Surface
from batchscale.report.draw.contours import begun, without_place
from batchscale.report.draw.levels import Grid, height, heights, levels_of, shade, span
from batchscale.report.draw.lines import WIDTH, Drawn, write_text
from batchscale.report.draw.scales import Ruler, words
from batchscale.report.draw.thin import evenly

_HEIGHT = 510.0
_MIDDLE, _BACK = 336.0, 262.0
"""C and D: where the floor's corner furthest from the eye lies."""
_ACROSS, _DOWN, _TALL = 226.0, 84.0, 206.0
"""A, B and H."""
_LINE, _GAP, _LEAST_STEP = 22.0, 9.0, 17.0
_MOST_ROWS = 41  # and columns that are drawn
_TICKS = 5


@dataclass(frozen=True)
class _View:
    """Where a point of a surface lies in the drawing."""

    surface: Surface
    low: float
    high: float

    def place(self, x: float, y: float, tall: float) -> tuple[float, float]:
        """Of a point at a height (as ``levels.height`` has it)."""
        surface = self.surface
        u = (x - surface.x[0]) / (surface.x[-1] - surface.x[0])
        v = (y - surface.y[0]) / (surface.y[-1] - surface.y[0])
        h = (tall - self.low) / (self.high - self.low)
        return _MIDDLE + (u - v) * _ACROSS, _BACK + (u + v) * _DOWN - h * _TALL


def draw_relief(figure: Figure, ident: str, summary: str) -> Drawn:
    """Draw a figure with a surface as a relief; it has no series.

    Args:
        figure: with a surface.
        ident: unique in the page.
        summary: what a screen reader says of it.

    Returns:
        The drawing; the points are those of the grid, row by row.
    """
    assert figure.surface is not None
    surface = figure.surface
    low, high = (height(surface, end) for end in span(surface))
    view = _View(surface, low, high if high > low else low + 1)
    values, levels = heights(surface), levels_of(surface)
    svg = begun(figure, ident, summary, _HEIGHT)
    _walls(svg, view, levels)
    group = ET.SubElement(svg, "g", {"class": "surface", "data-series": "0"})
    _cells(group, view, values, levels)
    _edges(svg, figure, view)
    label = {"x": "2", "y": f"{_LINE - 4:.1f}", "class": "label"}
    write_text(svg, "text", surface.label, **label)
    drawn = np.isfinite(values).ravel()
    grid = [(x, y, values[row, column]) for row, y in enumerate(surface.y) for column, x in enumerate(surface.x)]
    points = [(index, *view.place(*place)) for index, place in enumerate(grid) if drawn[index]]
    return Drawn(svg, [points], without_place(surface, drawn))


def _walls(svg: ET.Element, view: _View, levels: Sequence[float]) -> None:
    """The levels as lines along both walls behind, with words at their left ends where there is room."""
    group = ET.SubElement(svg, "g", {"class": "axes"})
    x, y = view.surface.x, view.surface.y
    last = float("inf")
    for word, level in zip(words(levels), levels, strict=True):
        tall = height(view.surface, level)
        wall = [view.place(*corner, tall) for corner in ((x[0], y[-1]), (x[0], y[0]), (x[-1], y[0]))]
        ET.SubElement(group, "path", {"class": "grid", "d": _path(wall)})
        left, down = wall[0]
        if last - down >= _LEAST_STEP:
            last = down
            place = {"x": f"{left - _GAP:.1f}", "y": f"{down:.1f}", "dy": ".32em", "text-anchor": "end"}
            write_text(group, "text", word, **place)


def _cells(group: ET.Element, view: _View, values: Grid, levels: Sequence[float]) -> None:
    """Quadrilaterals, the furthest first, in the shade of their mean height."""
    surface = view.surface
    rows, columns = evenly(len(surface.y), _MOST_ROWS), evenly(len(surface.x), _MOST_ROWS)
    placed = [height(surface, level) for level in levels]
    cells = itertools.product(range(len(rows) - 1), range(len(columns) - 1))
    for row, column in sorted(cells, key=sum):
        corners = [(rows[row + below], columns[column + beside]) for below, beside in ((0, 0), (0, 1), (1, 1), (1, 0))]
        talls = [float(values[corner]) for corner in corners]
        if not np.isfinite(talls).all():
            continue
        outline = [view.place(surface.x[j], surface.y[i], tall) for (i, j), tall in zip(corners, talls, strict=True)]
        band = int(np.searchsorted(placed, sum(talls) / len(talls)))
        ET.SubElement(group, "path", {"class": f"cell {shade(band, levels)}", "d": f"{_path(outline)}Z"})


def _edges(svg: ET.Element, figure: Figure, view: _View) -> None:
    """Both axes along the floor's edges in front, with ticks."""
    group = ET.SubElement(svg, "g", {"class": "axes"})
    x, y = view.surface.x, view.surface.y
    floor = [view.place(*corner, view.low) for corner in ((x[0], y[-1]), (x[-1], y[-1]), (x[-1], y[0]))]
    ET.SubElement(group, "path", {"class": "axis", "d": _path(floor)})
    for value, word in Ruler("linear", x[0], x[-1], 0, 1).ticks(_TICKS):
        _tick(group, view.place(value, y[-1], view.low), word, "end")
    for value, word in Ruler("linear", y[0], y[-1], 0, 1).ticks(_TICKS):
        _tick(group, view.place(x[-1], value, view.low), word, "start")
    write_text(group, "text", figure.x.label, x="2", y=f"{_HEIGHT - _LINE - 6:.1f}", **{"class": "label"})
    end = {"x": f"{WIDTH - 2:.1f}", "y": f"{_HEIGHT - 6:.1f}", "text-anchor": "end", "class": "label"}
    write_text(group, "text", figure.y.label, **end)


def _tick(group: ET.Element, place: tuple[float, float], word: str, anchor: str) -> None:
    side = -1 if anchor == "end" else 1
    across, down = place
    ET.SubElement(group, "path", {"class": "axis", "d": f"M{across:.1f} {down:.1f}l{4 * side} 3"})
    beside = {"x": f"{across + 8 * side:.1f}", "y": f"{down + 12:.1f}", "text-anchor": anchor}
    write_text(group, "text", word, **beside)


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{across:.1f} {down:.1f}" for across, down in points)
