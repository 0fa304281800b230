"""Figure of the all-reduce algorithms, from the document of ``bench allreduce``: time and bandwidth against size."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from batchscale.report.figures import save
from batchscale.words import counted

_BLACK, _VERMILION, _ORANGE, _BLUE, _GREEN, _PURPLE, _SKY = (
    "#000000", "#D55E00", "#E69F00", "#0072B2", "#009E73", "#CC79A7", "#56B4E9"
)  # fmt: skip # Okabe and Ito's, as in figures.py
_SOLID, _DASHED, _DOTTED = "-", (0, (5, 2)), (0, (1, 1.2))
_OTHER = (_BLACK, _DOTTED, ".")
_STYLES: dict[str, tuple[str, Any, str]] = {
    "builtin_shipped": (_BLACK, _DASHED, "o"),
    "builtin": (_BLACK, _SOLID, "o"),
    "shared_memory": (_BLUE, _SOLID, "s"),
    "shared_memory_copy": (_BLUE, _DASHED, "s"),
    "ring": (_VERMILION, _SOLID, "^"),
    "halving_doubling": (_GREEN, _SOLID, "v"),
    "binary_blocks": (_GREEN, _DASHED, "v"),
    "torus": (_ORANGE, _SOLID, "D"),
    "hierarchical": (_PURPLE, _SOLID, "P"),
    "three_phase": (_PURPLE, _DASHED, "P"),
    "direct": (_SKY, _SOLID, "X"),
}
"""Colour, line and marker: families share a colour, and no two algorithms both line and marker."""

_LIMIT = "each copying (limit)"
_STYLES[_LIMIT] = ("0.5", _DOTTED, "")
_LABEL_POINTS = 11.0  # from one label's middle to the next one's
_SIZES = ((1 << 20, "MB"), (1 << 10, "KB"))


@dataclass(frozen=True)
class Line:
    """One algorithm: its values by bytes."""

    name: str
    sizes: Sequence[float]
    values: Sequence[float]


def all_reduce_figure(document: Mapping[str, Any], stem: Path) -> list[Path]:
    """Time and bus bandwidth against size, one line an algorithm, named at its end; rings where auto was timed.

    Args:
        document: of ``bench allreduce``.
        stem: path without suffix.

    Returns:
        The PNG and the SVG.
    """
    figure = Figure(figsize=(12.0, 5.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    at, limit = document["conditions"], document["limit"]
    times = _lines(document["rows"], "seconds", 1e3)
    bandwidths = _lines(document["rows"], "bus_gigabytes_per_second", 1.0)
    bandwidths.append(Line(_LIMIT, [e["bytes"] for e in limit], [e["each_gigabytes_per_second"] for e in limit]))
    _draw(left, times, "milliseconds")
    _draw(right, bandwidths, "bus bandwidth, GB/s")
    low = min(value for line in bandwidths for value in line.values)
    high = max(value for line in bandwidths if line.name != _LIMIT for value in line.values)
    right.set_ylim(low / 1.6, 2.0 * max(high, bandwidths[-1].values[-1]))  # caches copy short tensors far beyond it
    _rings(left, document["auto"], "seconds", 1e3)
    _rings(right, document["auto"], "bus_gigabytes_per_second", 1.0)
    left.legend(loc="upper left", fontsize=9, frameon=False)
    figure.suptitle(
        f"All-reduce over {counted(document['processes'], 'process')} on {counted(at['cores'], 'core')} of "
        f"{at['cpu']}, float32; torch {at['torch']}, load {at['load_average']:g}, {at['date'][:10]}",
        fontsize=10.5,
    )
    figure.draw_without_rendering()  # only now does every point have its place
    _name_ends(left, times)
    _name_ends(right, bandwidths)
    return save(figure, stem)


def _lines(rows: Sequence[Mapping[str, Any]], key: str, scale: float) -> list[Line]:
    found = []
    for name in dict.fromkeys(str(row["algorithm"]) for row in rows):
        mine = [row for row in rows if row["algorithm"] == name]
        found.append(Line(name, [row["bytes"] for row in mine], [scale * row[key] for row in mine]))
    return found


def _draw(axes: Axes, lines: Sequence[Line], label: str) -> None:
    axes.set(xscale="log", yscale="log", xlabel="size of the tensor", ylabel=label)
    for line in lines:
        colour, dashes, marker = _STYLES.get(line.name, _OTHER)
        axes.plot(line.sizes, line.values, color=colour, linestyle=dashes, marker=marker, markersize=4, linewidth=1.5)
    every = sorted({size for line in lines for size in line.sizes})
    axes.set_xticks(every[:: 2 if len(every) > 6 else 1])
    axes.xaxis.set_major_formatter(FuncFormatter(_size))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_ylim(*axes.get_ylim())
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def _size(value: float, _: object) -> str:
    scale, unit = next(((s, u) for s, u in _SIZES if value >= s), (1, "B"))
    return f"{value / scale:g} {unit}"


def _rings(axes: Axes, auto: Sequence[Mapping[str, Any]], key: str, scale: float) -> None:
    axes.plot(
        [row["bytes"] for row in auto], [scale * row[key] for row in auto],
        linestyle="none", marker="o", markersize=10, markerfacecolor="none", markeredgecolor=_VERMILION,
        markeredgewidth=1.4, label="auto, timed afresh",
    )  # fmt: skip


def _name_ends(axes: Axes, lines: Sequence[Line]) -> None:
    """Every line's name beside its last point, moved up or down so that none covers another."""
    lines = sorted(lines, key=lambda line: line.values[-1])
    heights = [_height(axes, line.values[-1]) for line in lines]
    low, high = (_height(axes, value) for value in axes.get_ylim())
    for line, height, place in zip(lines, heights, spread_out(heights, _LABEL_POINTS, low, high), strict=True):
        colour, dashes, _ = _STYLES.get(line.name, _OTHER)
        leader = {
            "arrowstyle": "-", "color": colour, "linestyle": dashes, "linewidth": 0.8, "relpos": (0.0, 0.5),
            "shrinkA": 1, "shrinkB": 4,
        }  # fmt: skip
        axes.annotate(
            line.name,
            (line.sizes[-1], line.values[-1]),
            (34, place - height),
            textcoords="offset points",
            va="center",
            fontsize=9,
            color=colour,
            arrowprops=leader,
            annotation_clip=False,
        )


def _height(axes: Axes, value: float) -> float:
    """Where a value is drawn, in points from the figure's foot."""
    assert axes.figure is not None
    return float(axes.transData.transform((1.0, value))[1]) * 72.0 / axes.figure.dpi


def spread_out(wanted: Sequence[float], gap: float, low: float = -math.inf, high: float = math.inf) -> list[float]:
    """Places in the same order, at least ``gap`` apart, every crowd centred where its members want to be.

    Args:
        wanted: rising.
        gap: between neighbours.
        low, high: where the places end.
    """

    def bottom(crowd: Sequence[float]) -> float:
        extent = gap * (len(crowd) - 1)
        return max(min(math.fsum(crowd) / len(crowd) - extent / 2, high - extent), low)

    crowds: list[list[float]] = []
    for value in wanted:
        crowds.append([value])
        while len(crowds) > 1 and bottom(crowds[-1]) < bottom(crowds[-2]) + gap * len(crowds[-2]):
            last = crowds.pop()
            crowds[-1] += last
    return [bottom(crowd) + gap * place for crowd in crowds for place in range(len(crowd))]
