"""A figure as data -> what the template shows: drawing, legend, notes, its numbers as a table and for the script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree as ET

from markupsafe import Markup

from batchscale.records.findings import Axis, Figure, Series, Surface
from batchscale.report.draw.contours import draw_map
from batchscale.report.draw.levels import span
from batchscale.report.draw.lines import draw, look, slots, swatch
from batchscale.report.draw.relief import draw_relief
from batchscale.report.draw.scales import number
from batchscale.report.draw.thin import evenly, thinned
from batchscale.report.page.views import CellView, TableView, table_of
from batchscale.report.text import clean

_MOST_TABLE_ROWS, _FEWEST_OF_SERIES, _MOST_GRID = 60, 6, 13


@dataclass(frozen=True)
class FigureView:
    """A figure as shown: drawing, legend of (name, look, swatch), notes, the numbers as a table and for the script."""

    ident: str
    title: str
    caption: str
    drawing: Markup
    legend: Sequence[tuple[str, str, Markup]]
    notes: Sequence[str]
    table: TableView
    data: Mapping[str, Any]


def figure_view(figure: Figure, place: int, ids: Mapping[str, str]) -> FigureView:
    """A figure as shown; long series are thinned, and the notes say so."""
    ident = f"figure-{place}"
    short = figure.model_copy(update={"series": tuple(thinned(series) for series in figure.series)})
    drawn = _DRAWN[figure.surface.form if figure.surface else "lines"](short, ident, _summary(figure))
    fewer = [
        f"{clean(series.name)}: {len(few.x):,} of {len(series.x):,}"
        for series, few in zip(figure.series, short.series, strict=True)
        if len(few.x) < len(series.x)
    ]
    notes = [f"Points drawn, the lowest and highest of every stretch: {'; '.join(fewer)}."] if fewer else []
    if drawn.left_out:
        count = "1 value at or below 0 has" if drawn.left_out == 1 else f"{drawn.left_out} values at or below 0 have"
        notes.append(f"{count} no place on a logarithmic axis.")
    legend = [(clean(s.name), look(s, n), _markup(swatch(s, n))) for s, n in slots(figure.series)]
    data: dict[str, Any] = {
        "x": clean(figure.x.label),
        "y": clean(figure.y.label),
        "series": [
            {"name": clean(s.name), "points": [_point(figure, s, *point, ids) for point in points]}
            for s, points in zip(short.series, drawn.points, strict=False)
        ],
    }
    if figure.surface:
        grid = [_grid_point(figure, figure.surface, *point) for point in drawn.points[-1]]
        data["series"].append({"name": clean(figure.surface.label), "points": grid})
    table = _grid_numbers(figure, figure.surface) if figure.surface else _numbers(short, ids)
    return FigureView(ident, clean(figure.title), clean(figure.caption), _markup(drawn.svg), legend, notes, table, data)


_DRAWN = {"lines": draw, "map": draw_map, "relief": draw_relief}


def _markup(element: ET.Element) -> Markup:
    return Markup(ET.tostring(element, encoding="unicode"))


def _summary(figure: Figure) -> str:
    names = "; ".join(series.name for series in figure.series)
    marks = "; ".join(mark.label for mark in figure.marks)
    sentence = f"{figure.y.label} against {figure.x.label}. Series: {names or 'none'}."
    if figure.surface:
        low, high = map(number, span(figure.surface))
        sentence = f"{figure.surface.label}, {low} to {high}, over {figure.x.label} and {figure.y.label}."
        sentence += f" Series: {names}." if names else ""
    return f"{sentence} Marked: {marks}." if marks else sentence


def _spread(series: Series, index: int) -> str:
    low = series.low[index] if index < len(series.low) else None
    high = series.high[index] if index < len(series.high) else None
    return "" if low is None or high is None else f"{number(low)} to {number(high)}"


def _on(axis: Axis, value: float) -> str:
    """A value of an axis in words."""
    if axis.names:
        return clean(axis.names[int(value) - 1]) if 1 <= value <= len(axis.names) else ""
    return number(value, 6 if axis.scale == "log2" else 4)


def _point(figure: Figure, series: Series, index: int, across: float, down: float, ids: Mapping[str, str]) -> list[Any]:
    y = series.y[index]
    run = ids.get(series.runs[index], "") if index < len(series.runs) else ""
    words = [_on(figure.x, series.x[index]), "" if y is None else _on(figure.y, y), _spread(series, index), run]
    while words and not words[-1]:
        words.pop()
    return [round(across, 1), round(down, 1), *words]


def _grid_point(figure: Figure, surface: Surface, index: int, across: float, down: float) -> list[Any]:
    row, column = divmod(index, len(surface.x))
    words = (_on(figure.x, surface.x[column]), _on(figure.y, surface.y[row]), _value(surface, row, column))
    return [round(across, 1), round(down, 1), *words]


def _value(surface: Surface, row: int, column: int) -> str:
    value = surface.values[row][column]
    return "" if value is None else number(value)


def _grid_numbers(figure: Figure, surface: Surface) -> TableView:
    """The grid, its highest row first as the map has it; of many rows and columns some."""
    rows, columns = (evenly(len(places), _MOST_GRID) for places in (surface.y, surface.x))
    caption = f"{clean(surface.label)}; across: {clean(figure.x.label)}; down: {clean(figure.y.label)}."
    if max(len(surface.x), len(surface.y)) > _MOST_GRID:
        caption += f" {len(rows)} of {len(surface.y)} rows, {len(columns)} of {len(surface.x)} columns."
    cells = [
        [CellView(_on(figure.y, surface.y[row]), True), *(CellView(_value(surface, row, one), True) for one in columns)]
        for row in reversed(rows)
    ]
    heads = ["", *(_on(figure.x, surface.x[one]) for one in columns)]
    return table_of(f"The numbers of: {clean(figure.title)}", caption, heads, cells)


def _numbers(figure: Figure, ids: Mapping[str, str]) -> TableView:
    """A row for every x and a column for every series; of many points a row for some of each series."""
    title, axis = f"The numbers of: {clean(figure.title)}", clean(figure.x.label)
    every = sorted({x for series in figure.series for x in series.x})
    if len(every) <= _MOST_TABLE_ROWS:
        columns = [_by_x(figure, series, ids) for series in figure.series]
        rows = [[CellView(_on(figure.x, x), True), *(column.get(x, CellView("")) for column in columns)] for x in every]
        return table_of(title, f"{clean(figure.y.label)}.", [axis, *(clean(s.name) for s in figure.series)], rows)
    each = max(_MOST_TABLE_ROWS // len(figure.series), _FEWEST_OF_SERIES)
    rows = [
        [CellView(clean(s.name)), CellView(_on(figure.x, s.x[i]), True), CellView(_on(figure.y, y), True)]
        for s in figure.series
        for i in evenly(len(s.x), each)
        if (y := s.y[i]) is not None
    ]
    return table_of(title, f"At most {each} points of each series.", ["series", axis, clean(figure.y.label)], rows)


def _by_x(figure: Figure, series: Series, ids: Mapping[str, str]) -> dict[float, CellView]:
    cells: dict[float, CellView] = {}
    for index, (x, y) in enumerate(zip(series.x, series.y, strict=True)):
        if y is None:
            continue
        spread = _spread(series, index)
        words = f"{_on(figure.y, y)} ({spread})" if spread else _on(figure.y, y)
        run = ids.get(series.runs[index], "") if index < len(series.runs) else ""
        cells[x] = CellView(f"{cells[x].words}; {words}", True) if x in cells else CellView(words, True, run)
    return cells
