"""Errors of groups of runs against epochs, as one figure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from batchscale.records.findings import Axis, Figure, Series
from batchscale.records.run import EVALUATIONS, RunRecords

_LOWEST = 0.1


def error_curves(groups: Sequence[tuple[str, Sequence[Path]]], title: str) -> Figure:
    """Test error against epochs, the mean of each group's runs with a band from the lowest to the highest.

    Args:
        groups: (label, run folders) each.
        title: of the figure.
    """
    return Figure(
        id="error-epochs",
        title=title,
        caption="The mean over runs; the band reaches from the lowest to the highest.",
        x=Axis(label="epoch"),
        y=Axis(label=f"test error (%), 0 drawn at {_LOWEST:g}", scale="log10"),
        series=tuple(_series(label, runs) for label, runs in groups),
    )


def _series(label: str, runs: Sequence[Path]) -> Series:
    curves = [dict(RunRecords(run).points(EVALUATIONS, "error_percent")) for run in runs]
    epochs = [epoch for epoch in (curves[0] if curves else ()) if all(epoch in curve for curve in curves)]
    errors = [[max(curve[epoch], _LOWEST) for curve in curves] for epoch in epochs]
    return Series(
        name=label,
        x=tuple(epochs),
        y=tuple(map(statistics.fmean, errors)),
        low=tuple(map(min, errors)),
        high=tuple(map(max, errors)),
        style="curve",
    )
