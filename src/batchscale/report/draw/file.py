"""Any figure as data -> PNG and SVG files, drawn by matplotlib; several stand side by side.

Ticks are the page's; the legend stands below the axes, where it hides no curve.
"""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.figure import SubFigure
from matplotlib.ticker import NullLocator

from batchscale.records.findings import Axis, Figure, Mark, Series
from batchscale.report.draw.lines import slots
from batchscale.report.draw.scales import ruler, shown
from batchscale.report.draw.surface_file import draw_surface
from batchscale.system.disk import replace

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9", "#7A7A00")
"""Okabe and Ito's, told apart by the colour-blind, too; olive for their yellow, which is too light for a line."""
_NEUTRAL, _MARKERS = "0.45", "os^DvPX*"
_DASHES: tuple[Any, ...] = ((0, (5, 2)), (0, (1, 1.2)), (0, (5, 2, 1, 2)))
_LINES: dict[str, tuple[Any, ...]] = {
    "line": ("-",), "points": ("none",), "dashed": _DASHES, "curve": ("-", *_DASHES), "reference": ("-",)
}  # fmt: skip
"""By style; what has no markers differs by its dashes, never by colour alone."""
_WIDTH, _HEIGHT, _LINE_HEIGHT = 6.4, 4.4, 0.18
"""Inches of a figure without its legend, and of a line of that."""
_LINE_LETTERS, _SAMPLE_LETTERS = 76, 8
"""How wide a legend is, in letters as wide as most, and what a piece of line in it takes of that."""
_TICKS = 8


def write_figures(figures: Sequence[Figure], title: str, stem: Path) -> list[Path]:
    """Write figures beside each other into one PNG and one SVG, each whole or not at all.

    Args:
        figures: at least one.
        title: above all; "" for none.
        stem: path without suffix.

    Returns:
        The PNG and the SVG.
    """
    matplotlib.use("Agg")
    lines = max(_legend(figure)[1] for figure in figures)
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": stem.name}):
        canvas = Canvas(figsize=(_WIDTH * len(figures), _HEIGHT + _LINE_HEIGHT * lines), layout="constrained")
        for part, figure in zip(canvas.subfigures(1, len(figures), squeeze=False)[0], figures, strict=True):
            _draw(part, figure)
        canvas.suptitle(title, fontsize=10.5)
        return [_save(canvas, stem.with_name(stem.name + suffix)) for suffix in (".png", ".svg")]


def _save(canvas: Canvas, path: Path) -> Path:
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    canvas.savefig(aside, format=path.suffix[1:], dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)
    replace(aside, path)
    return path


def _draw(part: SubFigure, figure: Figure) -> None:
    axes = part.add_subplot() if figure.surface is None else draw_surface(part, figure)
    axes.set_title(figure.title, fontsize=11)
    for series, slot in slots(figure.series):
        _line(axes, series, slot, sideways=bool(figure.y.names))
    for mark in figure.marks:
        _mark(axes, mark)
    if figure.surface is not None:
        axes.set(xlabel=figure.x.label, ylabel=figure.y.label)
        return
    _scale(axes, "x", figure.x, list(_extent(figure, "x")))
    _scale(axes, "y", figure.y, list(_extent(figure, "y")))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if len(figure.series) > 1:
        part.legend(loc="outside lower center", ncols=_legend(figure)[0], fontsize=8.5, frameon=False)


def _legend(figure: Figure) -> tuple[int, int]:
    """Columns of the legend, two where the names are short enough, and its lines."""
    names = [_folded(series.name) for series in figure.series]
    letters = max((len(line) for name in names for line in name.splitlines()), default=0)
    columns = 2 if 2 * (letters + _SAMPLE_LETTERS) <= _LINE_LETTERS else 1
    return columns, -(-sum(len(name.splitlines()) for name in names) // columns)


def _folded(name: str) -> str:
    return textwrap.fill(name, _LINE_LETTERS - _SAMPLE_LETTERS)


def _line(axes: Axes, series: Series, slot: int, sideways: bool) -> None:
    """One series with its whiskers, or its band; beyond eight the colours come again, with open markers."""
    colour = _NEUTRAL if series.style == "dashed" else _COLOURS[slot % len(_COLOURS)]
    y = [float("nan") if value is None else value for value in series.y]
    axes.plot(
        series.x,
        y,
        label=_folded(series.name),
        color=colour,
        linestyle=_LINES[series.style][slot % len(_LINES[series.style])],
        linewidth=2.6 if series.style == "reference" else 1.6,
        marker=_MARKERS[slot % len(_MARKERS)] if series.style in ("line", "points") else "",
        markersize=5,
        markerfacecolor="none" if slot // len(_COLOURS) % 2 else colour,
    )
    spread = [(a, low, high) for a, low, high in zip(y if sideways else series.x, series.low, series.high, strict=False)
              if low is not None and high is not None]  # fmt: skip
    if not spread:
        return
    places, lows, highs = zip(*spread, strict=True)
    if series.style in ("line", "points"):
        (axes.hlines if sideways else axes.vlines)(places, lows, highs, color=colour, linewidth=1.2)
    else:
        axes.fill_between(places, lows, highs, color=colour, alpha=0.15, linewidth=0)


def _mark(axes: Axes, mark: Mark) -> None:
    if mark.y is not None:
        axes.axhline(mark.y, color=_NEUTRAL, linewidth=1)
        axes.annotate(
            mark.label, (1, mark.y), (-2, 3), axes.get_yaxis_transform(), "offset points", ha="right", fontsize=8
        )
    elif mark.x is not None:
        if mark.x_end is None:
            axes.axvline(mark.x, color=_NEUTRAL, linewidth=1)
        else:
            axes.axvspan(mark.x, mark.x_end, color=_NEUTRAL, alpha=0.15, linewidth=0)
        axes.annotate(mark.label, (mark.x, 1), (3, -9), axes.get_xaxis_transform(), "offset points", fontsize=8)


def _extent(figure: Figure, name: str) -> Iterator[float]:
    """Every value that has to lie within an axis."""
    whiskers = "x" if figure.y.names else "y"
    parts = (name, "low", "high") if name == whiskers else (name,)
    values = [value for series in figure.series for part in parts for value in getattr(series, part)]
    values += [value for mark in figure.marks for value in ((mark.x, mark.x_end) if name == "x" else (mark.y,))]
    axis = figure.x if name == "x" else figure.y
    yield from (value for value in values if value is not None and shown(axis.scale, value))
    if axis.names:
        yield from (0.5, len(axis.names) + 0.5)


def _scale(axes: Axes, name: str, axis: Axis, values: Sequence[float]) -> None:
    """Label, scale, ends and ticks of one axis, as the page has them."""
    line = ruler(axis.scale, values, 0.0, 1.0, zero=not axis.names)
    ticks = line.ticks(_TICKS)
    if axis.names:
        ticks = [(place + 1.0, word) for place, word in enumerate(axis.names)]
    if axis.scale != "linear":
        axes.set(**{f"{name}scale": "log"})
    axes.set(**{f"{name}label": axis.label, f"{name}lim": (line.low, line.high)})
    drawn = axes.xaxis if name == "x" else axes.yaxis
    drawn.set_minor_locator(NullLocator())
    drawn.set_ticks([value for value, _ in ticks], [word for _, word in ticks], fontsize=9)
