"""Curves of runs, read from their records and averaged over seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from batchscale.records.files import read_lines
from batchscale.records.findings import Series

_WINDOWS = 60  # of a curve of training losses, at most


@dataclass(frozen=True)
class Curve:
    """y against epochs."""

    epochs: tuple[float, ...]
    values: tuple[float, ...]


def error_curve(run: Path) -> Curve:
    """Test error in percent at every evaluation of a run."""
    lines = [line for line in read_lines(run / "evaluations.jsonl") if line.get("error_percent") is not None]
    return Curve(tuple(line["epoch"] for line in lines), tuple(line["error_percent"] for line in lines))


def loss_curve(run: Path, epochs: float) -> Curve:
    """Training loss of a run, as trained on: means over windows of epochs / 60, or over a line where that is longer.

    Args:
        run: its folder.
        epochs: of the whole run.
    """
    windows: dict[int, list[tuple[float, float]]] = {}
    for line in read_lines(run / "metrics.jsonl"):
        if line.get("loss") is not None:
            window = max(math.ceil(line["epoch"] / epochs * _WINDOWS - 1e-9), 1)
            windows.setdefault(window, []).append((line["epoch"], line["loss"]))
    found = sorted(windows.items())
    return Curve(
        tuple(lines[-1][0] for _, lines in found),
        tuple(statistics.fmean(loss for _, loss in lines) for _, lines in found),
    )


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """The mean at the epochs that every curve has."""
    if not curves:
        return Curve((), ())
    values = [dict(zip(curve.epochs, curve.values, strict=True)) for curve in curves]
    common = [epoch for epoch in curves[0].epochs if all(epoch in value for value in values)]
    return Curve(tuple(common), tuple(statistics.fmean(value[epoch] for value in values) for epoch in common))


def curve_series(name: str, curves: Sequence[Curve], reference: bool) -> Series:
    """The mean of some curves as a series; a reference is drawn thick."""
    mean = mean_curve(curves)
    return Series(name=name, x=mean.epochs, y=mean.values, style="reference" if reference else "curve")
