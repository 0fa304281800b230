"""Pictures of all-reduce schedules: ranks are rows, rounds are columns, arrows are exchanges.

Before and after every round each rank's buffer is a bar of pieces: grey where it holds its own summands only, light
where some ranks are summed, full colour where all are. Solid arrows are added, dashed ones with an open head overwrite;
an arrow has the colour of its slice, and is the thicker the longer that is.
"""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_hex
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path as Curve

Ints = npt.NDArray[np.int64]

_COLOURS = LinearSegmentedColormap.from_list(
    "pieces", ["#1F4E9C", "#2E9BD6", "#17A398", "#7FB83D", "#E8B418", "#EE7B22", "#D63A4A", "#8E3B9A"]
)
_INK, _GREY, _TINTS = "#33383F", "#D9DCE1", {True: "#FBF5E9", False: "#EDF4FA"}
_COLUMN_INCHES, _ROW_INCHES, _HEAD_INCHES = 1.0, 0.34, 0.085
_BAR, _BAR_POINTS = 0.40, 7.0  # width of a rank's bar in columns, and its height
_ABOVE, _BELOW, _BESIDE = 2.35, 1.25, 0.75  # room for words, in rows and columns


@dataclass(frozen=True)
class Round:
    """One round as plain arrays: slices [begin, end) go from source to target, all added or all overwriting."""

    source: Ints
    target: Ints
    begin: Ints
    end: Ints
    add: bool


def draw_schedule(rounds: Sequence[Round], size: int, length: int, title: str, file: Path) -> None:
    """Draw a schedule into a file, SVG or PNG by its suffix.

    Args:
        rounds: in order.
        size: W, ranks.
        length: elements of the buffer.
        title: above the picture.
        file: to write.
    """
    matplotlib.use("Agg")
    cuts = np.unique(np.concatenate([[0, length], *(r.begin for r in rounds), *(r.end for r in rounds)]))
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "schedule", "font.family": "DejaVu Sans"}):
        columns, rows = max(len(rounds), 3) + 2 * _BESIDE, size - 1 + _ABOVE + _BELOW
        figure = Figure(figsize=(_COLUMN_INCHES * columns, _ROW_INCHES * rows))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(-_BESIDE, columns - _BESIDE), ylim=(size - 1 + _BELOW, -_ABOVE))
        axes.axis("off")
        _headings(axes, rounds, size, title)
        _bars(axes, _summands(rounds, size, cuts), cuts / length)
        _arrows(axes, rounds, length)
        metadata = {"Date": None} if file.suffix == ".svg" else None
        figure.savefig(file, dpi=110, metadata=metadata)
    if file.suffix == ".svg":  # two decimals are enough, and half the bytes
        file.write_text(re.sub(r"(\d\.\d\d)\d+", r"\1", file.read_text(encoding="utf-8")), encoding="utf-8")


def _summands(rounds: Sequence[Round], size: int, cuts: Ints) -> list[Ints]:
    """How many ranks are summed in every piece of every rank, before the first and after each round (W, pieces)."""
    held = np.ones((size, len(cuts) - 1), np.int64)
    states = [held.copy()]
    for each in rounds:
        previous = held.copy()
        places = zip(np.searchsorted(cuts, each.begin), np.searchsorted(cuts, each.end), strict=True)
        for source, target, (first, last) in zip(each.source, each.target, places, strict=True):
            kept = held[target, first:last] if each.add else 0
            held[target, first:last] = kept + previous[source, first:last]
        states.append(held.copy())
    return states


def _headings(axes: Axes, rounds: Sequence[Round], size: int, title: str) -> None:
    axes.text(-0.62, -1.95, title, fontsize=11, fontweight="bold", color=_INK, va="center")
    kinds = [each.add for each in rounds]
    rows = size - 1 + _ABOVE + _BELOW
    bottom, top = (_BELOW - 0.5) / rows, 1 - (_ABOVE - 1.55) / rows
    edges = [0, *(i for i in range(1, len(kinds)) if kinds[i] != kinds[i - 1]), len(kinds)]
    for first, last in itertools.pairwise(edges):
        axes.axvspan(first + 0.02, last - 0.02, bottom, top, color=_TINTS[kinds[first]], lw=0)
        word = "add" if kinds[first] else "overwrite"
        axes.text((first + last) / 2, -1.2, word, fontsize=8.5, ha="center", va="center", color=_INK, style="italic")
    caption = "grey: own summands only; light: some ranks'; full colour: all"
    axes.text(-0.62, size - 0.13, caption, fontsize=7.5, va="center", color="#6B727C")
    for number in range(len(rounds)):
        axes.text(number + 0.5, -0.68, str(number + 1), fontsize=8, ha="center", va="center", color=_INK)
    for rank in range(size):
        axes.text(-0.32, rank, str(rank), fontsize=8.5, ha="right", va="center", color=_INK)
    axes.text(-0.32, -0.68, "rank", fontsize=8, ha="right", va="center", color=_INK)


def _bars(axes: Axes, states: Sequence[Ints], cuts: npt.NDArray[np.float64]) -> None:
    size = len(states[0])
    shapes: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
    for column, held in enumerate(states):
        left = column - _BAR / 2 + _BAR * cuts
        for rank in range(size):
            shapes[_GREY].append((left[0], left[-1], rank))
            for piece in np.flatnonzero(held[rank] > 1):
                colour = _piece_colour(cuts[piece], cuts[piece + 1], _strength(held[rank, piece], size))
                shapes[colour].append((left[piece], left[piece + 1], rank))
    for colour, bars in shapes.items():
        points = [(x, y) for left, right, y in bars for x in (left, right)]
        curve = Curve(points, [Curve.MOVETO, Curve.LINETO] * len(bars))
        axes.add_patch(PathPatch(curve, fill=False, edgecolor=colour, linewidth=_BAR_POINTS, capstyle="butt", zorder=3))


def _strength(summands: int, size: int) -> float:
    """Of a colour: full where all ranks are summed, else light, and the stronger the more."""
    return 1.0 if summands == size else 0.25 + 0.35 * summands / size


def _piece_colour(begin: float, end: float, strength: float = 1.0) -> str:
    """A colour for the place of a slice in the buffer, mixed with white."""
    red, green, blue, _ = _COLOURS((begin + end) / 2)
    return to_hex((1 - strength + strength * red, 1 - strength + strength * green, 1 - strength + strength * blue))


def _arrows(axes: Axes, rounds: Sequence[Round], length: int) -> None:
    shafts: dict[tuple[str, float, bool], list[tuple[float, float]]] = defaultdict(list)
    heads: dict[tuple[str, bool], list[tuple[float, float]]] = defaultdict(list)
    for number, each in enumerate(rounds):
        start, stop = number + _BAR / 2 + 0.02, number + 1 - _BAR / 2 - 0.02
        for source, target, begin, end in zip(each.source, each.target, each.begin, each.end, strict=True):
            colour = _piece_colour(begin / length, end / length)
            along = np.array([(stop - start) * _COLUMN_INCHES, (target - source) * _ROW_INCHES])
            along /= np.hypot(*along)
            back, side = _HEAD_INCHES * along, 0.36 * _HEAD_INCHES * np.array([-along[1], along[0]])
            scale = np.array([1 / _COLUMN_INCHES, 1 / _ROW_INCHES])
            tip = np.array([stop, target])
            shafts[colour, (end - begin) / length, each.add] += [(start, source), tuple(tip - back * scale)]
            heads[colour, each.add] += [
                tuple(tip),
                tuple(tip + (side - back) * scale),
                tuple(tip - (side + back) * scale),
            ]
    for (colour, share, add), points in shafts.items():
        style = {"linewidth": 0.9 + 1.3 * share, "linestyle": "solid" if add else (0, (3, 1.4)), "capstyle": "butt"}
        curve = Curve(points, [Curve.MOVETO, Curve.LINETO] * (len(points) // 2))
        axes.add_patch(PathPatch(curve, fill=False, edgecolor=colour, zorder=2, **style))
    for (colour, add), points in heads.items():
        corners = [corner for i in range(0, len(points), 3) for corner in (*points[i : i + 3], points[i])]
        curve = Curve(corners, [Curve.MOVETO, Curve.LINETO, Curve.LINETO, Curve.CLOSEPOLY] * (len(points) // 3))
        axes.add_patch(
            PathPatch(curve, facecolor=colour if add else "white", edgecolor=colour, linewidth=0.8, zorder=2.5)
        )
