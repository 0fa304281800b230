"""What the rows come to: where more devices stop paying, which are worth their cost, and which one to take."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from batchscale.cost.planning.question import Bounds
from batchscale.cost.planning.rows import PlanRow
from batchscale.cost.planning.spans import span
from batchscale.errors import UsageError
from batchscale.words import counted, counts_between

LEAST_GAIN = 0.5
"""Of the gain that as many more devices would bring at full efficiency, on a logarithmic scale: below, they do not pay.
A doubling pays where it shortens the time by a factor of at least 2^0.5."""


@dataclass(frozen=True)
class Advice:
    """What to do.

    Args:
        recommended: the row to take.
        stops_paying_at: devices beyond which the next count of the plan does not pay; None: all of them pay.
        pareto: device counts that no other one beats in both time and cost.
        why: the recommendation's reason, for the sentence.
    """

    recommended: PlanRow
    stops_paying_at: int | None
    pareto: tuple[int, ...]
    why: str


def stops_paying(rows: Sequence[PlanRow]) -> int | None:
    """The first device count after which the next one brings less than half of what it should."""
    for row, further in itertools.pairwise(rows):
        gain = math.log(row.hours.value / further.hours.value)
        if gain < LEAST_GAIN * math.log(further.choice.devices / row.choice.devices):
            return row.choice.devices
    return None


def pareto(rows: Sequence[PlanRow]) -> tuple[int, ...]:
    """Device counts for which no other row is both as fast and as cheap, and better in one."""
    return tuple(
        row.choice.devices
        for row in rows
        if not any(
            other.hours.value <= row.hours.value
            and other.device_hours.value <= row.device_hours.value
            and (other.hours.value, other.device_hours.value) != (row.hours.value, row.device_hours.value)
            for other in rows
        )
    )


def advise(rows: Sequence[PlanRow], bounds: Bounds) -> Advice:
    """The cheapest row that keeps to the bounds with the upper end of its interval; without bounds the last that pays.

    Args:
        rows: at least one, at rising device counts.
        bounds: deadline and budget.

    Raises:
        UsageError: no row keeps to the bounds; names the nearest that can be met.
    """
    stops, front = stops_paying(rows), pareto(rows)
    if bounds == Bounds():
        paying = [row for row in rows if stops is None or row.choice.devices <= stops]
        reason = "every further count of the plan pays less" if stops is not None else "the plan's largest count pays"
        if len(rows) == 1:
            reason = "the only count that the plan has numbers of"
        return Advice(paying[-1], stops, front, reason)
    fitting = _within(rows, bounds)
    cheapest = min(fitting, key=lambda row: row.device_hours.value)
    if bounds.deadline_hours is None:  # a budget alone asks for the fastest that it pays
        return Advice(min(fitting, key=lambda row: row.hours.value), stops, front, "the fastest within the budget")
    return Advice(cheapest, stops, front, "the cheapest within the deadline")


def _counts(rows: Sequence[PlanRow]) -> str:
    return counts_between(rows[0].choice.devices, rows[-1].choice.devices)


def _within(rows: Sequence[PlanRow], bounds: Bounds) -> list[PlanRow]:
    """The rows that keep to the bounds.

    Raises:
        UsageError: there are none.
    """
    deadline, budget = bounds.deadline_hours, bounds.budget
    in_time = [row for row in rows if deadline is None or row.hours.high <= deadline]
    if not in_time and deadline is not None:
        nearest = min(rows, key=lambda row: row.hours.high)
        raise UsageError(
            f"--deadline={span(deadline)}: none of {_counts(rows)} meets it "
            f"in 95 of 100 cases; the nearest that one does is --deadline {span(nearest.hours.high, up=True)}, on "
            f"{counted(nearest.choice.devices, 'device', ',')}"
        )
    fitting = [row for row in in_time if budget is None or (row.cost is not None and row.cost.high <= budget)]
    if not fitting and budget is not None:
        dear = min(in_time, key=lambda row: row.cost.high if row.cost is not None else math.inf)
        high = dear.cost.high if dear.cost is not None else math.inf
        beside = "" if deadline is None else f" within --deadline={span(deadline)}"
        raise UsageError(
            f"--budget={budget:g}: none of {_counts(rows)} keeps to it{beside}"
            f" in 95 of 100 cases; the nearest that one does is --budget {math.ceil(high)}, on "
            f"{counted(dear.choice.devices, 'device', ',')}"
        )
    return fitting
