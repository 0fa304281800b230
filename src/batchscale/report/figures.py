"""Figures of runs: drawn from their records by matplotlib, as PNG and SVG."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from batchscale.records.files import read_lines
from batchscale.system.disk import replace

# Okabe and Ito's colours: told apart by the colour-blind, too.
_COLOURS = ("#000000", "#D55E00", "#E69F00", "#0072B2", "#009E73", "#CC79A7")


def error_curves(groups: Sequence[tuple[str, Sequence[Path]]], title: str, stem: Path) -> list[Path]:
    """Test error against epochs, one colour a group, one line a run.

    Args:
        groups: (label, run folders) each.
        title: of the figure.
        stem: path without suffix.

    Returns:
        The PNG and the SVG.
    """
    figure = Figure(figsize=(7.2, 4.4), layout="constrained")
    axes = figure.add_subplot()
    for colour, (label, runs) in zip(_COLOURS, groups, strict=False):
        for number, run in enumerate(runs):
            lines = [line for line in read_lines(run / "evaluations.jsonl") if line.get("error_percent") is not None]
            axes.plot(
                [line["epoch"] for line in lines],
                [max(line["error_percent"], 0.1) for line in lines],
                color=colour,
                linewidth=1.6,
                alpha=0.85,
                label=None if number else label,
            )
    axes.set(xlabel="epoch", ylabel="test error (%), 0 drawn at 0.1", title=title, yscale="log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", fontsize=9)  # below the axes: it hides no curve
    return save(figure, stem)


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write a figure as PNG and SVG, each whole or not at all.

    Args:
        figure: drawn.
        stem: path without suffix.
    """
    matplotlib.use("Agg")
    written = []
    for suffix in (".png", ".svg"):
        path = stem.with_name(stem.name + suffix)
        aside = path.with_name(f".{path.name}.{os.getpid()}")
        figure.savefig(aside, format=suffix[1:], dpi=150)
        replace(aside, path)
        written.append(path)
    return written
