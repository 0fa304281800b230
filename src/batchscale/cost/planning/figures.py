"""A plan as figures: time to the goal against devices, and cost against time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from batchscale.cost.planning.plan import Plan
from batchscale.cost.planning.rows import PlanRow
from batchscale.records.findings import Axis, Figure, Mark, Series


def plan_figures(plan: Plan) -> Iterator[Figure]:
    """Both."""
    question, advice = plan.question, plan.advice
    stops = advice.stops_paying_at
    marks = [] if stops is None else [Mark(label=f"more stop paying: {stops:,}", x=float(stops))]
    deadline = question.bounds.deadline_hours
    marks += [] if deadline is None else [Mark(label="deadline", y=deadline)]
    first = plan.rows[0]
    ideal = [first.hours.value * first.choice.devices / row.choice.devices for row in plan.rows]
    yield Figure(
        id="time",
        title="Time to the goal",
        caption=f"Best minibatch and algorithm at each number of devices, to {question.goal.words}; band: 90 %.",
        x=Axis(label="devices", scale="log2"),
        y=Axis(label="hours", scale="log10"),
        series=(
            _hours("best", plan.rows),
            *(
                _hours(name, rows, band=False)
                for name, rows in (("strong scaling", plan.scalings.strong), ("weak scaling", plan.scalings.weak))
                if len(rows) > 1
            ),
            Series(name="ideal", x=_devices(plan.rows), y=tuple(ideal), style="dashed"),
        ),
        marks=tuple(marks),
    )
    yield _front(plan)


def _devices(rows: Sequence[PlanRow]) -> tuple[float, ...]:
    return tuple(float(row.choice.devices) for row in rows)


def _hours(name: str, rows: Sequence[PlanRow], band: bool = True) -> Series:
    return Series(
        name=name,
        x=_devices(rows),
        y=tuple(row.hours.value for row in rows),
        low=tuple(row.hours.low for row in rows) if band else (),
        high=tuple(row.hours.high for row in rows) if band else (),
    )


def _front(plan: Plan) -> Figure:
    """Cost against time; device-hours where no price is known."""
    priced, budget = plan.question.price is not None, plan.question.bounds.budget
    front = [row for row in plan.rows if row.choice.devices in plan.advice.pareto]
    others = [row for row in plan.rows if row.choice.devices not in plan.advice.pareto]
    marks = (Mark(label="budget", y=budget),) if priced and budget is not None else ()
    return Figure(
        id="front",
        title="Cost against time" if priced else "Device-hours against time",
        caption="A point a number of devices; on the front no other one is both faster and cheaper.",
        x=Axis(label="hours to the goal", scale="log10"),
        y=Axis(label="cost" if priced else "device-hours", scale="log10"),
        series=(_costs("front", front, "line"), *((_costs("others", others, "points"),) if others else ())),
        marks=marks,
    )


def _costs(name: str, rows: Sequence[PlanRow], style: str) -> Series:
    dear = [row.device_hours if row.cost is None else row.cost for row in rows]
    return Series(
        name=name,
        x=tuple(row.hours.value for row in rows),
        y=tuple(estimate.value for estimate in dear),
        low=tuple(estimate.low for estimate in dear),
        high=tuple(estimate.high for estimate in dear),
        style="line" if style == "line" else "points",
    )
