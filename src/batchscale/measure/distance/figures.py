"""Distances against the logarithm of the steps, all runs on one page, and as a table."""

from __future__ import annotations

from batchscale.measure.distance.answer import Answer
from batchscale.records.findings import Axis, Figure, Series, Table
from batchscale.records.measured import MeasuredNumber

_LABEL = "|w - w0|"


def figures(answer: Answer) -> list[Figure]:
    """One, with a line a run: a straight one is a logarithm."""
    series = [
        Series(name=f"{path.run} (kn = {path.minibatch})", x=tuple(map(float, path.steps)), y=path.distances)
        for path in answer.paths
    ]
    return [
        Figure(
            id="distance",
            title="Distance from the initial weights",
            caption="A straight line here is a distance that grows as the logarithm of the steps.",
            x=Axis(label="steps", scale="log10"),
            y=Axis(label=_LABEL),
            series=tuple(series),
        )
    ]


def tables(answer: Answer) -> list[Table]:
    """A row a run."""
    columns = ("run", "minibatch", "steps", _LABEL, "|w0|", "b of ln t", "R^2", "power p", "R^2 of logarithms")
    rows = []
    for path in answer.paths:
        fits = [number for fit in (path.logarithmic, path.power) for number in _numbers(fit)]
        numbers = (path.distances[-1], path.initial, *fits)
        rows.append((path.run, path.minibatch, path.steps[-1], *map(_rounded, numbers)))
    return [Table(title="Distances at the last step", columns=columns, rows=tuple(rows))]


def _numbers(fit: object) -> tuple[float | None, float | None]:
    return getattr(fit, "slope", None), getattr(fit, "explained", None)


def numbers(answer: Answer) -> list[MeasuredNumber]:
    """The distance at the state's step."""
    return [MeasuredNumber(_LABEL, "distance from the initial weights", answer.paths[0].distances[-1])]


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")
