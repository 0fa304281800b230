"""Curves of runs, read from their records and averaged over seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from batchscale.records.findings import Axis, Figure, Series
from batchscale.records.run import EVALUATIONS, METRICS, RunRecords
from batchscale.study.evidence.judged import Judged

_WINDOWS = 60  # of a curve of training losses, at most


@dataclass(frozen=True)
class Curve:
    """y against epochs; of a mean with the lowest and the highest that it is of."""

    epochs: tuple[float, ...]
    values: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()


def score_curve(run: Path, key: str = "error_percent") -> Curve:
    """The score at every evaluation of a run.

    Args:
        run: its folder.
        key: of the score, in the lines of evaluations.jsonl.
    """
    points = list(RunRecords(run).points(EVALUATIONS, key))
    return Curve(tuple(epoch for epoch, _ in points), tuple(score for _, score in points))


def loss_curve(run: Path, epochs: float) -> Curve:
    """Training loss of a run, as trained on, in windows.

    Args:
        run: its folder.
        epochs: of the whole run.
    """
    return _windows(run, "loss", epochs)


def train_score_curve(run: Path, epochs: float, key: str = "error_percent") -> Curve:
    """The score of the images as trained on, in windows; empty where it was not recorded.

    Args:
        run: its folder.
        epochs: of the whole run.
        key: of the score.
    """
    return _windows(run, f"train_{key}", epochs)


def _windows(run: Path, entry: str, epochs: float) -> Curve:
    """Means over windows of epochs / 60, or over a line where that is longer."""
    windows: dict[int, list[tuple[float, float]]] = {}
    for epoch, value in RunRecords(run).points(METRICS, entry):
        window = max(math.ceil(epoch / epochs * _WINDOWS - 1e-9), 1)
        windows.setdefault(window, []).append((epoch, value))
    in_order = [lines for _, lines in sorted(windows.items())]
    return Curve(
        tuple(lines[-1][0] for lines in in_order),
        tuple(statistics.fmean(value for _, value in lines) for lines in in_order),
    )


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """The mean, the lowest and the highest at the epochs that every curve has."""
    if not curves:
        return Curve((), ())
    values = [dict(zip(curve.epochs, curve.values, strict=True)) for curve in curves]
    common = [epoch for epoch in curves[0].epochs if all(epoch in value for value in values)]
    columns = [[value[epoch] for value in values] for epoch in common]
    means = tuple(map(statistics.fmean, columns))
    return Curve(tuple(common), means, tuple(map(min, columns)), tuple(map(max, columns)))


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seed alone; the reference is drawn thick."""

    name: str
    folders: Sequence[Path]
    is_reference: bool


def curve_figures(groups: Sequence[Group], epochs: float, judged: Judged, about: str, what: str) -> tuple[Figure, ...]:
    """Score of evaluations, training score where it was recorded, and training loss, against epochs.

    Args:
        groups: one curve each, the mean over its runs.
        epochs: of a run.
        judged: what the runs are judged by.
        about: first sentence of the captions.
        what: end of the titles.
    """
    trained = (
        f"{about} Of the images as trained on; means over windows of a sixtieth of the run, or over one line of "
        f"metrics.jsonl where that is longer."
    )
    name, key = judged.score.name, judged.key
    kinds = (
        (f"{name}-epochs", judged.words, Axis(label=judged.label), f"{about} One point an evaluation.",
         lambda run: score_curve(run, key)),
        (f"train-{name}-epochs", f"training {name}", Axis(label=f"training {name} {judged.unit_words}".rstrip()),
         trained, lambda run: train_score_curve(run, epochs, key)),
        ("loss-epochs", "training loss", Axis(label="training loss", scale="log10"), trained,
         lambda run: loss_curve(run, epochs)),
    )  # fmt: skip
    first, *others = (
        Figure(id=place, title=f"{words.capitalize()} {what}", caption=caption, x=Axis(label="epoch"), y=axis,
               series=tuple(_series(group, curve) for group in groups))
        for place, words, axis, caption, curve in kinds
    )  # fmt: skip
    return first, *(figure for figure in others if any(series.x for series in figure.series))


def _series(group: Group, curve: Callable[[Path], Curve]) -> Series:
    mean = mean_curve([curve(folder) for folder in group.folders])
    return Series(name=group.name, x=mean.epochs, y=mean.values, style="reference" if group.is_reference else "curve")
