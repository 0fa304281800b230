"""What measures said of a run while it trained, and what its minibatch grew by, against epochs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from batchscale.records.files import is_number
from batchscale.records.findings import Axis, Figure, Series
from batchscale.records.measured import MeasuredNumber, measured_numbers
from batchscale.report.text import as_words

_DECADES = 30.0
"""Numbers that span more than so many times are drawn on a logarithmic axis."""

Point = tuple[float, MeasuredNumber]
"""(epoch, what was measured there)."""


def measured_figures(lines: Sequence[Mapping[str, Any]]) -> list[Figure]:
    """The figures of the lines of measures.jsonl.

    Args:
        lines: of a run; those of a measure that was refused have no numbers.
    """
    by_axis: dict[tuple[str, str], dict[str, list[Point]]] = {}
    for measure, epoch, number in _points(lines):
        by_axis.setdefault((measure, number.axis), {}).setdefault(number.name, []).append((epoch, number))
    figures = []
    for place, ((measure, axis), series) in enumerate(by_axis.items()):
        values = [number.value for points in series.values() for _, number in points if number.value is not None]
        wide = values and min(values) > 0 and max(values) > _DECADES * min(values)
        quantity = axis.partition(",")[0]
        figures.append(
            Figure(
                id=f"measure-{measure}-{place}",
                title=quantity[:1].upper() + quantity[1:],
                caption=f"By measure {measure}, between two steps; a band is an interval, a gap a number that is not "
                f"resolved.",
                x=Axis(label="epoch"),
                y=Axis(label=axis, scale="log10" if wide else "linear"),
                series=tuple(_series(name, points) for name, points in series.items()),
            )
        )
    return figures


def _points(lines: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, float, MeasuredNumber]]:
    """(measure, epoch, number), one after the other; the options of a measure stand in the name of its numbers."""
    alike: dict[str, list[Any]] = {}
    for line in lines:
        options = alike.setdefault(as_words(line.get("measure")), [])
        if line.get("options") not in options:
            options.append(line.get("options"))
    for line in lines:
        measure, epoch, asked = as_words(line.get("measure")), line.get("epoch"), line.get("options")
        several = len(alike[measure]) > 1 and isinstance(asked, Mapping)
        words = ", ".join(f"{name} {value}" for name, value in asked.items()) if several and asked else ""
        if not is_number(epoch):
            continue
        for number in measured_numbers(line):
            named = MeasuredNumber(
                f"{number.name} ({words})" if words else number.name, number.axis, number.value, number.low, number.high
            )
            yield measure, epoch, named


def _series(name: str, points: Sequence[Point]) -> Series:
    """A line through the values, with its band where there are intervals."""
    numbers = [number for _, number in points]
    has_band = any(number.low is not None and number.high is not None for number in numbers)
    return Series(
        name=name,
        x=tuple(epoch for epoch, _ in points),
        y=tuple(number.value for number in numbers),
        low=tuple(number.low for number in numbers) if has_band else (),
        high=tuple(number.high for number in numbers) if has_band else (),
    )


def decided_figures(decisions: Sequence[Any]) -> list[Figure]:
    """The top eigenvalues by which a minibatch grew; none of one that grew by something else, or not at all.

    Args:
        decisions: of result.json.
    """
    rows = [row for row in decisions if isinstance(row, Mapping) and is_number(row.get("epoch"))]
    points = [(float(row["epoch"]), _eigenvalue(row)) for row in rows if "eigenvalue" in row]
    if not points:
        return []
    held = [(epoch, MeasuredNumber("", "", number)) for epoch, number in _references(rows)]
    return [
        Figure(
            id="growth-curvature",
            title="Top eigenvalue at every decision",
            caption="Of the Hessian of the loss over the stated set; an eigenvalue lies in the band (lambda, give or "
            "take its residual). lambda_0 is what each was compared to: where lambda has fallen by the factor, the "
            "minibatch grows.",
            x=Axis(label="epoch"),
            y=Axis(label="top eigenvalue"),
            series=(_series("lambda", points), *([_series("lambda_0", held)] if held else [])),
        )
    ]


def _eigenvalue(row: Mapping[str, Any]) -> MeasuredNumber:
    value, residual = row["eigenvalue"], row.get("residual")
    if not is_number(value):
        return MeasuredNumber("lambda", "", None)
    if not is_number(residual):
        return MeasuredNumber("lambda", "", value)
    return MeasuredNumber("lambda", "", value, value - residual, value + residual)


def _references(rows: Sequence[Mapping[str, Any]]) -> list[tuple[float, float]]:
    """(epoch, lambda_0) where there is one."""
    return [(row["epoch"], row["reference_eigenvalue"]) for row in rows if is_number(row.get("reference_eigenvalue"))]
