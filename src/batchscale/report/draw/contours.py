"""A surface as a map: bands between round levels, lines with their values on them, and a key beside it.

The bands are one colour from light to dark (z0 .. z12 of the page's style), so that they are told apart by anyone; the
lines' words say which is which. Contours by contourpy (marching squares).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree as ET

import contourpy
import numpy as np
import numpy.typing as npt

from batchscale.records.findings import Figure, Surface
from batchscale.report.draw.levels import height, heights, levels_of, shade
from batchscale.report.draw.lines import (
    WIDTH,
    Drawn,
    draw_axes,
    draw_line,
    look,
    point_places,
    slots,
    write_text,
)
from batchscale.report.draw.scales import Ruler, words

_SIDE, _LEFT, _TOP, _BELOW = 440.0, 76.0, 62.0, 66.0
"""Of the square map, and the margins around it, in units of the drawing."""
_HEIGHT = _TOP + _SIDE + _BELOW
_KEY_LEFT, _KEY_WIDTH = _LEFT + _SIDE + 22.0, 16.0
_SHORTEST, _INSIDE, _APART = 70.0, 22.0, 44.0
"""A line's length that has room for its words, how far these keep from the map's edge, and from each other."""

Points = npt.NDArray[np.float64]


def draw_map(figure: Figure, ident: str, summary: str) -> Drawn:
    """Draw a figure with a surface as a map, its series upon it.

    Args:
        figure: with a surface.
        ident: unique in the page.
        summary: what a screen reader says of it.

    Returns:
        The drawing; after the points of the series those of the grid, row by row.
    """
    assert figure.surface is not None
    surface = figure.surface
    across = Ruler("linear", surface.x[0], surface.x[-1], _LEFT, _LEFT + _SIDE)
    down = Ruler("linear", surface.y[0], surface.y[-1], _TOP + _SIDE, _TOP)
    svg = begun(figure, ident, summary, _HEIGHT)
    levels = levels_of(surface)
    group = ET.SubElement(svg, "g", {"class": "surface", "data-series": str(len(figure.series))})
    lines = _bands(group, surface, levels, across, down)
    draw_axes(svg, figure, across, down)
    _words(svg, levels, lines)
    _key(svg, surface, levels)
    points = [point_places(series, across, down) for series in figure.series]
    for index, ((series, slot), marked) in enumerate(zip(slots(figure.series), points, strict=True)):
        part = ET.SubElement(svg, "g", {"class": f"series {look(series, slot)}", "data-series": str(index)})
        draw_line(part, series, slot, marked)
    drawn = np.isfinite(heights(surface)).ravel()
    grid = [(across.place(x), down.place(y)) for y in surface.y for x in surface.x]
    points.append([(index, *place) for index, place in enumerate(grid) if drawn[index]])
    return Drawn(svg, points, without_place(surface, drawn))


def begun(figure: Figure, ident: str, summary: str, tall: float) -> ET.Element:
    """The drawing with its title and what a screen reader says."""
    svg = ET.Element("svg", {
        "class": "drawing", "role": "img", "viewBox": f"0 0 {WIDTH:g} {tall:g}",
        "aria-labelledby": f"{ident}-title {ident}-desc",
    })  # fmt: skip
    write_text(svg, "title", figure.title, id=f"{ident}-title")
    write_text(svg, "desc", summary, id=f"{ident}-desc")
    return svg


def without_place(surface: Surface, drawn: npt.NDArray[np.bool_]) -> int:
    """How many values there are that a log scale has no place for."""
    return sum(value is not None for row in surface.values for value in row) - int(drawn.sum())


def _bands(
    group: ET.Element, surface: Surface, levels: Sequence[float], across: Ruler, down: Ruler
) -> list[list[Points]]:
    """The bands and the lines between them; the lines of each level."""
    values = heights(surface)
    if not np.isfinite(values).any():
        return [[] for _ in levels]
    generator: Any = contourpy.contour_generator(
        [across.place(x) for x in surface.x],
        [down.place(y) for y in surface.y],
        np.ma.masked_invalid(values),
        fill_type="OuterOffset",
        line_type="Separate",
    )
    placed = [height(surface, level) for level in levels]
    ends = [min([np.nanmin(values), *placed]) - 1, *placed, max([np.nanmax(values), *placed]) + 1]
    for band, (low, high) in enumerate(itertools.pairwise(ends)):
        outlines, offsets = generator.filled(low, high)
        rings = [
            outline[first:end]
            for outline, cuts in zip(outlines, offsets, strict=True)
            for first, end in itertools.pairwise(cuts)
        ]
        if rings:
            path = "".join(f"{_path(ring)}Z" for ring in rings)
            ET.SubElement(group, "path", {"class": f"shade {shade(band, levels)}", "fill-rule": "evenodd", "d": path})
    lines: list[list[Points]] = [list(generator.lines(level)) for level in placed]
    for level in lines:
        if level:
            ET.SubElement(group, "path", {"class": "contour", "d": "".join(map(_path, level))})
    return lines


def _path(points: Points) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def _words(svg: ET.Element, levels: Sequence[float], lines: Sequence[Sequence[Points]]) -> None:
    """Each level's value on the longest of its lines, where it is far from the edges and from the other values."""
    group = ET.SubElement(svg, "g", {"class": "mark values"})
    written: list[tuple[float, float]] = []
    for word, level in zip(words(levels), lines, strict=True):
        longest = max(level, key=_length, default=None)
        if longest is None or _length(longest) < _SHORTEST:
            continue
        places = [(float(x), float(y)) for x, y in longest if _is_inside(x, y)]
        place = max(places, key=lambda one: _nearest(one, written), default=None)
        if place is None or _nearest(place, written) < _APART:
            continue
        written.append(place)
        x, y = place
        write_text(group, "text", word, x=f"{x:.1f}", y=f"{y:.1f}", dy=".32em", **{"text-anchor": "middle"})


def _length(points: Points) -> float:
    return float(np.hypot(*np.diff(points, axis=0).T).sum())


def _is_inside(x: float, y: float) -> bool:
    return _LEFT + _INSIDE < x < _LEFT + _SIDE - _INSIDE and _TOP + _INSIDE < y < _TOP + _SIDE - _INSIDE


def _nearest(place: tuple[float, float], others: Sequence[tuple[float, float]]) -> float:
    """How far the nearest of the others is; where there are none, the middle of the map's right half draws."""
    if not others:
        return 1e3 - float(np.hypot(place[0] - _LEFT - 0.7 * _SIDE, place[1] - _TOP - 0.5 * _SIDE))
    return min(float(np.hypot(place[0] - x, place[1] - y)) for x, y in others)


def _key(svg: ET.Element, surface: Surface, levels: Sequence[float]) -> None:
    """A bar of all bands with the levels between them."""
    group = ET.SubElement(svg, "g", {"class": "key"})
    label = {"x": f"{WIDTH - 2:.1f}", "y": f"{_TOP - 12:.1f}", "text-anchor": "end", "class": "label"}
    write_text(group, "text", surface.label, **label)
    tall = _SIDE / (len(levels) + 1)
    for band in range(len(levels) + 1):
        place = {"x": f"{_KEY_LEFT:.1f}", "y": f"{_TOP + _SIDE - (band + 1) * tall:.1f}"}
        size = {"width": f"{_KEY_WIDTH:.1f}", "height": f"{tall:.1f}"}
        ET.SubElement(group, "rect", {"class": f"shade {shade(band, levels)}", **place, **size})
    for number, word in enumerate(words(levels)):
        y = _TOP + _SIDE - (number + 1) * tall
        write_text(group, "text", word, x=f"{_KEY_LEFT + _KEY_WIDTH + 7:.1f}", y=f"{y:.1f}", dy=".32em")
