"""A surface drawn by matplotlib, with the page's levels and shades: a map of contours, or a relief."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.colors import BoundaryNorm, ListedColormap, to_rgb
from matplotlib.figure import SubFigure
from matplotlib.ticker import NullLocator

from batchscale.records.findings import Figure
from batchscale.report.draw.levels import height, heights, levels_of
from batchscale.report.draw.scales import words

_INK = "0.15"
_DARK, _LIGHTEST, _DARKEST = "#0072B2", 0.04, 0.96


def draw_surface(part: SubFigure, figure: Figure) -> Any:
    """The axes with the surface of a figure on them.

    Args:
        part: of the canvas.
        figure: with a surface.
    """
    assert figure.surface is not None
    surface = figure.surface
    values = np.ma.masked_invalid(heights(surface))
    levels = levels_of(surface)
    placed, names = [height(surface, level) for level in levels], words(levels)
    relief = surface.form == "relief"
    axes: Any = part.add_subplot(projection="3d" if relief else None)
    ends = [min([values.min(), *placed]) - 1e-9, *placed, max([values.max(), *placed]) + 1e-9]
    shades = ListedColormap([_mixed(band / max(len(placed), 1)) for band in range(len(placed) + 1)])
    style: dict[str, Any] = {"cmap": shades, "norm": BoundaryNorm(ends, shades.N)}
    if relief:
        columns, rows = np.meshgrid(surface.x, surface.y)
        drawn = axes.plot_surface(columns, rows, values, rstride=1, cstride=1, edgecolor=_INK, linewidth=0.2, **style)
        axes.set_zticks(placed, names, fontsize=8)
    else:
        drawn = axes.contourf(surface.x, surface.y, values, ends, **style)
        lines = (
            axes.contour(surface.x, surface.y, values, placed, colors=_INK, linewidths=0.7, linestyles="solid")
            if placed
            else None
        )
        if lines is not None:
            axes.clabel(lines, fmt=dict(zip(placed, names, strict=True)), fontsize=8)
    key = part.colorbar(drawn, ax=axes, label=surface.label, pad=0.12 if relief else 0.03, shrink=0.8)
    key.ax.yaxis.set_minor_locator(NullLocator())
    key.set_ticks(placed, labels=names)
    if relief:
        axes.locator_params(axis="x", nbins=5)
        axes.locator_params(axis="y", nbins=5)
    return axes


def _mixed(share: float) -> tuple[float, float, float]:
    """The dark colour mixed with white."""
    strength = _LIGHTEST + share * (_DARKEST - _LIGHTEST)
    red, green, blue = (1 - strength + strength * one for one in to_rgb(_DARK))
    return red, green, blue
