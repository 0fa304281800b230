"""Numbers that measures said of the ends of several runs: means over seeds, as columns, a figure, and JSON."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from batchscale.records.findings import Axis, Figure, Series
from batchscale.records.measured import measured_numbers
from batchscale.study.measuring import line_at_end
from batchscale.study.runner.cell import Outcome


@dataclass(frozen=True)
class MeasuredEnds:
    """One number of a measure at the ends of runs.

    Attributes:
        measure: its name.
        name, axis: of the number.
        values: one a run; None where the run has none, or it is not resolved.
    """

    measure: str
    name: str
    axis: str
    values: tuple[float | None, ...]

    @property
    def mean(self) -> float | None:
        """Over the runs that have a value."""
        values = self._known
        return statistics.fmean(values) if values else None

    @property
    def deviation(self) -> float | None:
        """The standard deviation (n - 1); None of fewer than two."""
        values = self._known
        return statistics.stdev(values) if len(values) > 1 else None

    @property
    def _known(self) -> list[float]:
        return [value for value in self.values if value is not None and math.isfinite(value)]

    def as_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "measure": self.measure,
            "number": self.name,
            "mean": self.mean,
            "std": self.deviation,
            "values": list(self.values),
        }


def measured_ends(outcomes: Sequence[Outcome], measures: Sequence[str]) -> tuple[MeasuredEnds, ...]:
    """Every number of every measure, over runs that belong together."""
    ends = []
    for measure in measures:
        lines = [line_at_end(outcome, measure) for outcome in outcomes]
        of_runs = [{number.name: number for number in measured_numbers(line)} if line else {} for line in lines]
        axes = {name: number.axis for numbers in of_runs for name, number in numbers.items()}
        for name, axis in axes.items():
            values = tuple(numbers[name].value if name in numbers else None for numbers in of_runs)
            ends.append(MeasuredEnds(measure, name, axis, values))
    return tuple(ends)


Key = tuple[str, str]
"""(measure, number)."""


def keys_of(groups: Sequence[Sequence[MeasuredEnds]]) -> list[Key]:
    """Every number that one of several groups of runs has, in the order of first mention."""
    return list(dict.fromkeys((one.measure, one.name) for group in groups for one in group))


def columns_of(keys: Sequence[Key]) -> tuple[str, ...]:
    """Of a table: the mean of each number."""
    return tuple(f"{name} ({measure}), mean" for measure, name in keys)


def cells_of(keys: Sequence[Key], group: Sequence[MeasuredEnds]) -> tuple[float | None, ...]:
    """A row's cells for these columns, to four digits."""
    means = {(one.measure, one.name): one.mean for one in group}
    return tuple(None if (mean := means.get(key)) is None else float(f"{mean:.4g}") for key in keys)


def against_score(
    groups: Mapping[str, tuple[Sequence[MeasuredEnds], Sequence[float | None]]], label: str
) -> tuple[Figure, ...]:
    """A figure for each number: a run's score against it, a name for each group.

    Args:
        groups: name -> (its numbers, its runs' scores in the same order).
        label: of the score.
    """
    figures: list[Figure] = []
    for measure, name in keys_of([numbers for numbers, _ in groups.values()]):
        series, axis = [], name
        for group, (numbers, scores) in groups.items():
            ends = next((one for one in numbers if (one.measure, one.name) == (measure, name)), None)
            if ends is None:
                continue
            axis = ends.axis
            pairs = [(x, y) for x, y in zip(ends.values, scores, strict=True) if x is not None and y is not None]
            if pairs:
                xs, ys = zip(*pairs, strict=True)
                series.append(Series(name=group, x=xs, y=ys, style="points"))
        if series:
            values = [x for one in series for x in one.x]
            wide = min(values) > 0 and max(values) > 30 * min(values)
            figures.append(
                Figure(
                    id=f"score-{measure}-{len(figures)}",
                    title=f"{label[:1].upper()}{label[1:]} against {name}",
                    caption=f"One point a run, at its end, by measure {measure}. A description: it shows no cause.",
                    x=Axis(label=axis, scale="log10" if wide else "linear"),
                    y=Axis(label=label),
                    series=tuple(series),
                )
            )
    return tuple(figures)
