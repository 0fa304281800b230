"""Curves of runs, read from their records and averaged over seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from batchscale.records.files import is_number, read_lines
from batchscale.records.findings import Series

_WINDOWS = 60  # of a curve of training losses, at most


@dataclass(frozen=True)
class Curve:
    """y against epochs; of a mean with the lowest and the highest that it is of."""

    epochs: tuple[float, ...]
    values: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()


def error_curve(run: Path) -> Curve:
    """Error in percent at every evaluation of a run."""
    points = list(_points(run / "evaluations.jsonl", "error_percent"))
    return Curve(tuple(epoch for epoch, _ in points), tuple(error for _, error in points))


def loss_curve(run: Path, epochs: float) -> Curve:
    """Training loss of a run, as trained on: means over windows of epochs / 60, or over a line where that is longer.

    Args:
        run: its folder.
        epochs: of the whole run.
    """
    windows: dict[int, list[tuple[float, float]]] = {}
    for epoch, loss in _points(run / "metrics.jsonl", "loss"):
        window = max(math.ceil(epoch / epochs * _WINDOWS - 1e-9), 1)
        windows.setdefault(window, []).append((epoch, loss))
    found = sorted(windows.items())
    return Curve(
        tuple(lines[-1][0] for _, lines in found),
        tuple(statistics.fmean(loss for _, loss in lines) for _, lines in found),
    )


def _points(path: Path, entry: str) -> Iterator[tuple[float, float]]:
    """(epoch, value) of every line that has both: a damaged line is passed over."""
    for line in read_lines(path):
        epoch, value = line.get("epoch"), line.get(entry)
        if is_number(epoch) and is_number(value):
            yield epoch, value


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """The mean, the lowest and the highest at the epochs that every curve has."""
    if not curves:
        return Curve((), ())
    values = [dict(zip(curve.epochs, curve.values, strict=True)) for curve in curves]
    common = [epoch for epoch in curves[0].epochs if all(epoch in value for value in values)]
    at = [[value[epoch] for value in values] for epoch in common]
    return Curve(tuple(common), tuple(map(statistics.fmean, at)), tuple(map(min, at)), tuple(map(max, at)))


def curve_series(name: str, curves: Sequence[Curve], reference: bool) -> Series:
    """The mean of some curves as a series; a reference is drawn thick."""
    mean = mean_curve(curves)
    return Series(name=name, x=mean.epochs, y=mean.values, style="reference" if reference else "curve")
