"""A figure as data -> an SVG drawing to stand in a page.

Colours, widths and sizes of letters come from the page's style by classes: s0 .. s7 are series, neutral dashed ones.
Every y lies where its axis says (scales.py). Series differ by marker and dashes too, never by colour alone.
"""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree as ET

from batchscale.records.findings import Figure, Mark, Series
from batchscale.report.draw.scales import Ruler, ruler, shown
from batchscale.report.text import clean

WIDTH, HEIGHT = 640.0, 400.0
LOOKS = 8
"""Series beyond so many repeat colour and marker, the marker then open."""
_DASHES = 3
"""Dashed series beyond so many repeat their dashes."""
_RIGHT, _LINE, _LETTER, _GAP = 18.0, 22.0, 11.0, 9.0
"""Margins in units of the drawing: letters are 20 high on a phone, 13 elsewhere."""
_LABEL_LETTERS = 54
_X_TICKS, _Y_TICKS, _LOG_Y_TICKS = 9, 6, 10

MARKERS = (
    "M-4.5 0A4.5 4.5 0 1 0 4.5 0A4.5 4.5 0 1 0-4.5 0Z",
    "M-4-4H4V4H-4Z",
    "M0-5.4L5 3.6H-5Z",
    "M0-5.6L5.6 0L0 5.6L-5.6 0Z",
    "M0 5.4L5-3.6H-5Z",
    "M-1.6-5H1.6V-1.6H5V1.6H1.6V5H-1.6V1.6H-5V-1.6H-1.6Z",
    "M-5-2.6L-2.6-5L0-2.4L2.6-5L5-2.6L2.4 0L5 2.6L2.6 5L0 2.4L-2.6 5L-5 2.6L-2.4 0Z",
    "M0-5.4L1.6-1.9L5.2-1.7L2.4 .7L3.3 4.4L0 2.3L-3.3 4.4L-2.4 .7L-5.2-1.7L-1.6-1.9Z",
)
"""Outlines around (0, 0): circle, square, triangles, diamond, plus, cross, star."""


@dataclass(frozen=True)
class Drawn:
    """A drawing, and where its points lie.

    Args:
        svg: the drawing.
        points: of every series, (index, across, down) of each point that has a place.
        left_out: values that are there but have no place on a log axis.
    """

    svg: ET.Element
    points: list[list[tuple[int, float, float]]]
    left_out: int


def draw(figure: Figure, ident: str, summary: str) -> Drawn:
    """Draw a figure.

    Args:
        figure: with series already thinned.
        ident: unique in the page.
        summary: what a screen reader says of it.
    """
    across, down = _rulers(figure)
    svg = ET.Element("svg", {
        "class": "drawing", "role": "img", "viewBox": f"0 0 {WIDTH:g} {HEIGHT:g}",
        "aria-labelledby": f"{ident}-title {ident}-desc",
    })  # fmt: skip
    write_text(svg, "title", figure.title, id=f"{ident}-title")
    write_text(svg, "desc", summary, id=f"{ident}-desc")
    draw_axes(svg, figure, across, down)
    points = [point_places(series, across, down) for series in figure.series]
    occupied = [(x, y) for places in points for _, x, y in places]
    for number, mark in enumerate(figure.marks):
        _mark(svg, mark, number, across, down, occupied)
    for index, ((series, slot), places) in enumerate(zip(slots(figure.series), points, strict=True)):
        group = ET.SubElement(svg, "g", {"class": f"series {look(series, slot)}", "data-series": str(index)})
        _spread(group, series, across, down, sideways=bool(figure.y.names))
        draw_line(group, series, slot, places)
    values = sum(y is not None for s in figure.series for y in s.y)
    return Drawn(svg, points, values - sum(map(len, points)))


def slots(series: Sequence[Series]) -> list[tuple[Series, int]]:
    """Each series with its number among the dashed ones or among the others: an ideal shifts no colours."""
    counts = {True: itertools.count(), False: itertools.count()}
    return [(one, next(counts[one.style == "dashed"])) for one in series]


def look(series: Series, slot: int) -> str:
    """The class of a series: its colour, and whether its marker is open."""
    if series.style == "dashed":
        return "neutral"
    return f"s{slot % LOOKS}{' open' if slot // LOOKS % 2 else ''}"


def swatch(series: Series, slot: int) -> ET.Element:
    """The piece of a line that stands in the legend."""
    svg = ET.Element("svg", {"class": f"swatch {look(series, slot)}", "viewBox": "0 0 34 14", "aria-hidden": "true"})
    if series.style != "points":
        ET.SubElement(svg, "path", {"class": _line_class(series, slot), "d": "M1 7H33"})
    if series.style in ("line", "points"):
        ET.SubElement(svg, "use", {"href": f"#marker-{slot % LOOKS}", "x": "17", "y": "7"})
    return svg


def _rulers(figure: Figure) -> tuple[Ruler, Ruler]:
    xs = [x for s in figure.series for x in s.x] + [x for m in figure.marks for x in (m.x, m.x_end) if x is not None]
    ys = [y for s in figure.series for part in (s.y, s.low, s.high) for y in part] + [m.y for m in figure.marks]
    top = _LINE * len(_label(figure.y.label)) + 14
    bottom = HEIGHT - _LINE * (1 + len(_label(figure.x.label))) - 12
    down = ruler(figure.y.scale, [y for y in ys if y is not None and shown(figure.y.scale, y)], bottom, top)
    widest = max((len(word) for _, word in _y_ticks(figure, down)), default=1)
    left = _LETTER * widest + _GAP + 4
    if figure.y.names:
        xs += [x for s in figure.series for part in (s.low, s.high) for x in part if x is not None]
        down = ruler("linear", [0.5, len(figure.y.names) + 0.5], bottom, top, zero=False)
    return ruler(figure.x.scale, [x for x in xs if shown(figure.x.scale, x)], left, WIDTH - _RIGHT), down


def _x_ticks(figure: Figure, across: Ruler) -> list[tuple[float, str]]:
    """The values themselves where these are few and have room, else as many ticks as have."""
    values = sorted(
        {x for s in figure.series if s.style not in ("curve", "reference") for x in s.x if shown(figure.x.scale, x)}
    )
    choices = [across.own_ticks(values)] if 2 <= len(values) <= _X_TICKS and across.scale != "linear" else []
    choices += [across.ticks(most) for most in range(_X_TICKS, 2, -1)]
    return next((ticks for ticks in choices if _have_room(ticks, across)), choices[-1])


def _have_room(ticks: list[tuple[float, str]], across: Ruler) -> bool:
    return all(
        across.place(right) - across.place(left) > _LETTER * (len(left_word) + len(right_word)) / 2 + _GAP
        for (left, left_word), (right, right_word) in itertools.pairwise(ticks)
    )


def _y_ticks(figure: Figure, down: Ruler) -> list[tuple[float, str]]:
    if figure.y.names:
        return [(place + 1.0, clean(name)) for place, name in enumerate(figure.y.names)]
    return down.ticks(_LOG_Y_TICKS if figure.y.scale == "log10" else _Y_TICKS)


def _label(words: str) -> list[str]:
    return textwrap.wrap(clean(words), _LABEL_LETTERS)[:2] or [""]


def draw_axes(svg: ET.Element, figure: Figure, across: Ruler, down: Ruler) -> None:
    """Ticks, grid and words of both axes."""
    group = ET.SubElement(svg, "g", {"class": "axes"})
    for value, word in _y_ticks(figure, down):
        y = down.place(value)
        ET.SubElement(group, "path", {"class": "grid", "d": f"M{across.start:.1f} {y:.1f}H{across.end:.1f}"})
        write_text(
            group, "text", word, x=f"{across.start - _GAP:.1f}", y=f"{y:.1f}", dy=".32em", **{"text-anchor": "end"}
        )
    ET.SubElement(group, "path", {"class": "axis", "d": f"M{across.start:.1f} {down.start:.1f}H{across.end:.1f}"})
    for value, word in _x_ticks(figure, across):
        x = across.place(value)
        ET.SubElement(group, "path", {"class": "axis", "d": f"M{x:.1f} {down.start:.1f}v5"})
        write_text(group, "text", word, x=f"{x:.1f}", y=f"{down.start + _LINE:.1f}", **{"text-anchor": "middle"})
    for number, line in enumerate(_label(figure.y.label)):
        write_text(group, "text", line, x="2", y=f"{_LINE * (number + 1) - 4:.1f}", **{"class": "label"})
    for number, line in enumerate(_label(figure.x.label)):
        place = {"x": f"{across.end:.1f}", "y": f"{down.start + _LINE * (number + 2) + 3:.1f}", "text-anchor": "end"}
        write_text(group, "text", line, **{"class": "label"}, **place)


def _mark(
    svg: ET.Element, mark: Mark, number: int, across: Ruler, down: Ruler, occupied: Sequence[tuple[float, float]]
) -> None:
    group = ET.SubElement(svg, "g", {"class": "mark odd" if number % 2 else "mark"})
    if mark.y is not None and shown(down.scale, mark.y):
        y = down.place(mark.y)
        ET.SubElement(group, "path", {"d": f"M{across.start:.1f} {y:.1f}H{across.end:.1f}"})
        heights = (y - 6, y + 18) if y - 6 > down.end + 14 else (y + 18,)
        sides = ((across.end, "end"), (across.start + 5, "start"))
        _mark_label(group, mark.label, [(x, height, anchor) for x, anchor in sides for height in heights], occupied)
    if mark.x is None or not shown(across.scale, mark.x):
        return
    x = end = across.place(mark.x)
    if mark.x_end is None:
        ET.SubElement(group, "path", {"d": f"M{x:.1f} {down.start:.1f}V{down.end:.1f}"})
    else:
        end = across.place(mark.x_end)
        size = {"x": f"{min(x, end):.1f}", "y": f"{down.end:.1f}", "width": f"{abs(end - x):.1f}"}
        ET.SubElement(group, "rect", {**size, "height": f"{down.start - down.end:.1f}"})
    late = x > (across.start + across.end) / 2
    side = (end - 5, "end") if late else (x + 5, "start")
    levels = tuple(down.end + 14 + _LINE * ((number + more) % 3) for more in range(3))
    _mark_label(group, mark.label, [(side[0], level, side[1]) for level in levels], occupied)


def _mark_label(
    group: ET.Element, words: str, choices: Sequence[tuple[float, float, str]], occupied: Sequence[tuple[float, float]]
) -> None:
    """The words at the first of the places (across, down, anchor) where they lie on no point, else at the first."""

    def free(place: tuple[float, float, str]) -> bool:
        x, foot, anchor = place
        left = x - _LETTER * len(words) * (anchor == "end")
        beside = (across - left for across, down in occupied if foot - _LINE < down < foot + _GAP)
        return not any(-_GAP < distance < _LETTER * len(words) + _GAP for distance in beside)

    x, y, anchor = next(filter(free, choices), choices[0])
    write_text(group, "text", words, x=f"{x:.1f}", y=f"{y:.1f}", **{"text-anchor": anchor})


def point_places(series: Series, across: Ruler, down: Ruler) -> list[tuple[int, float, float]]:
    """(index, across, down) of every point that has a place."""
    return [
        (index, across.place(x), down.place(y))
        for index, (x, y) in enumerate(zip(series.x, series.y, strict=True))
        if y is not None and shown(across.scale, x) and shown(down.scale, y)
    ]


def draw_line(group: ET.Element, series: Series, slot: int, places: Sequence[tuple[int, float, float]]) -> None:
    """The line, with a gap where a point has no place, and the markers."""
    steps = zip([-2, *(index for index, _, _ in places)], places, strict=False)
    path = "".join(f"{'L' if index == last + 1 else 'M'}{x:.1f} {y:.1f}" for last, (index, x, y) in steps)
    if series.style != "points" and path:
        ET.SubElement(group, "path", {"class": _line_class(series, slot), "d": path})
    if series.style in ("line", "points"):
        for _, x, y in places:
            ET.SubElement(group, "use", {"href": f"#marker-{slot % LOOKS}", "x": f"{x:.1f}", "y": f"{y:.1f}"})


def _line_class(series: Series, slot: int) -> str:
    if series.style == "dashed":
        return f"line dashed e{slot % _DASHES}"
    if series.style == "reference":
        return "line reference"
    return f"line curve d{slot % 4}" if series.style == "curve" else "line"


def _spread(group: ET.Element, series: Series, across: Ruler, down: Ruler, sideways: bool) -> None:
    """Whiskers at points, a band around curves; sideways: whiskers around x."""
    pieces = _pieces(
        series, down if sideways else across, across if sideways else down, series.y if sideways else series.x
    )
    if series.style in ("line", "points"):
        each = [bar for piece in pieces for bar in piece]
        bars = [
            f"M{a:.1f} {place:.1f}H{b:.1f}" if sideways else f"M{place:.1f} {a:.1f}V{b:.1f}" for place, a, b in each
        ]
        if bars:
            ET.SubElement(group, "path", {"class": "whisker", "d": "".join(bars)})
        return
    for piece in pieces:
        around = [(x, high) for x, _, high in piece] + [(x, low) for x, low, _ in reversed(piece)]
        ET.SubElement(group, "polygon", {"class": "band", "points": " ".join(f"{x:.1f},{y:.1f}" for x, y in around)})


def _pieces(
    series: Series, along: Ruler, beside: Ruler, values: Sequence[float | None]
) -> list[list[tuple[float, float, float]]]:
    """Unbroken stretches of (place, low, high); what lies at or below 0 on a log axis reaches its foot."""
    pieces: list[list[tuple[float, float, float]]] = [[]]
    for value, low, high in zip(values, series.low, series.high, strict=False):
        if (
            value is None
            or low is None
            or high is None
            or not (shown(along.scale, value) and shown(beside.scale, high))
        ):
            pieces.append([])
            continue
        foot = beside.place(low) if shown(beside.scale, low) else beside.start
        pieces[-1].append((along.place(value), foot, beside.place(high)))
    return pieces


def write_text(parent: ET.Element, tag: str, words: str, **attributes: str) -> None:
    """An element with words."""
    ET.SubElement(parent, tag, attributes).text = clean(words)
