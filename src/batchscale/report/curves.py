"""Errors of groups of runs against epochs, as one figure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path

from batchscale.records.findings import Axis, Figure, Series
from batchscale.records.run import EVALUATIONS, RunRecords
from batchscale.records.score import Score

_LOWEST = 0.1
_ERROR = Score(name="error", value=None, unit="%")


def error_curves(groups: Sequence[tuple[str, Sequence[Path]]], title: str, score: Score = _ERROR) -> Figure:
    """Test error, or another score, against epochs: each group's mean with a band from the lowest to the highest.

    Args:
        groups: (label, run folders) each.
        title: of the figure.
        score: that the runs are judged by.
    """
    if score.name != _ERROR.name:
        axis, floor = Axis(label=f"test {score.name} {f'({score.unit})' if score.unit else ''}".rstrip()), -math.inf
    else:
        axis, floor = Axis(label=f"test error (%), 0 drawn at {_LOWEST:g}", scale="log10"), _LOWEST
    key = f"{score.name}_percent" if score.unit == "%" else score.name
    return Figure(
        id=f"{score.name}-epochs",
        title=title,
        caption="The mean over runs; the band reaches from the lowest to the highest.",
        x=Axis(label="epoch"),
        y=axis,
        series=tuple(_series(label, runs, key, floor) for label, runs in groups),
    )


def _series(label: str, runs: Sequence[Path], key: str, floor: float) -> Series:
    curves = [dict(RunRecords(run).points(EVALUATIONS, key)) for run in runs]
    epochs = [epoch for epoch in (curves[0] if curves else ()) if all(epoch in curve for curve in curves)]
    errors = [[max(curve[epoch], floor) for curve in curves] for epoch in epochs]
    return Series(
        name=label,
        x=tuple(epochs),
        y=tuple(map(statistics.fmean, errors)),
        low=tuple(map(min, errors)),
        high=tuple(map(max, errors)),
        style="curve",
    )
