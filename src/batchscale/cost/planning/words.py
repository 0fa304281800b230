"""A plan in words, tables and figures."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from batchscale.cost.planning.advice import LEAST_GAIN, Advice
from batchscale.cost.planning.document import plan_document
from batchscale.cost.planning.estimate import Estimate
from batchscale.cost.planning.figures import plan_figures
from batchscale.cost.planning.plan import Plan
from batchscale.cost.planning.rows import PlanRow
from batchscale.cost.planning.spans import span
from batchscale.records.findings import Findings, Table
from batchscale.words import counted, counts_between, of_examples


def plan_findings(plan: Plan, parameters: list[dict[str, Any]], command: Sequence[str]) -> Findings:
    """All that `plan RECIPE` says.

    Args:
        plan: what came out.
        parameters: of what predicts.
        command: words of the command line.
    """
    question = plan.question
    trained, answer = question.trained, sentence(plan)
    document = plan_document(plan, parameters)
    document["recommended"]["sentence"] = answer
    first, last = question.devices[0], question.devices[-1]
    return Findings(
        kind="plan",
        title=f"{trained.recipe} on {counts_between(first, last)}",
        recipe=trained.recipe,
        asked=(
            f"How many devices of {question.cluster}, which minibatch, how long and at what cost to "
            f"{question.goal.words}? {trained.epoch_examples:,} training {trained.examples} an epoch, "
            f"{trained.per_worker:,} a worker; {_basis(plan)}. Intervals of 90 %."
        ),
        answer=answer,
        command=tuple(command),
        figures=tuple(plan_figures(plan)),
        tables=tuple(_tables(plan, document)),
        warnings=plan.warnings,
        result=document,
    )


def _basis(plan: Plan) -> str:
    points = plan.question.pace.points
    if not points:
        return "step times by physics alone"
    return f"step times led through {counted(len(points), 'measured point')}, physics for what they do not say"


def sentence(plan: Plan) -> str:
    """The recommendation."""
    advice, trained = plan.advice, plan.question.trained
    row = advice.recommended
    choice = row.choice
    cost = "" if row.cost is None else f", at a cost of {_short(row.cost.value)} ({_ends(row.cost)})"
    way = f" by {choice.algorithm}" if choice.devices > 1 else ""
    workers, tail = counted(choice.workers, "worker", ","), "; ".join((_stop(plan.rows, advice), *plan.left_out))
    return of_examples(
        f"Take {counted(choice.devices, 'device', ',')} ({advice.why}): {workers} of {choice.per_worker:,} images, a "
        f"minibatch of {choice.minibatch:,}{way}, {span(row.hours.value)} ({span(row.hours.low)} to "
        f"{span(row.hours.high)}) to {plan.question.goal.words}, {_short(row.device_hours.value)} "
        f"device-hours{cost}; {tail}.",
        trained.examples,
    )


def _stop(rows: Sequence[PlanRow], advice: Advice) -> str:
    if len(rows) == 1:
        return "whether more devices pay, this one count does not say"
    if advice.stops_paying_at is None:
        return f"more devices pay up to {rows[-1].choice.devices:,}, as far as the plan goes"
    return (
        f"beyond {advice.stops_paying_at:,} a doubling of the devices shortens the time by less than a factor of "
        f"{2**LEAST_GAIN:.1f}"
    )


def _short(value: float) -> str:
    """Three digits, without an exponent."""
    if not math.isfinite(value):
        return "-"
    if abs(value) >= 1000:
        return f"{float(f'{value:.3g}'):,.0f}"
    return f"{value:.3g}"


def _ends(estimate: Estimate) -> str:
    return f"{_short(estimate.low)} to {_short(estimate.high)}"


def _both(estimate: Estimate) -> str:
    return f"{_short(estimate.value)} ({_ends(estimate)})"


def _tables(plan: Plan, document: dict[str, Any]) -> Iterator[Table]:
    trained = plan.question.trained
    price = () if plan.question.price is None else ("cost",)
    yield Table(
        title="The plan",
        columns=("devices", "minibatch", "workers x each", "algorithm", f"{trained.examples}/s", "efficiency %",
                 "epochs", "time", "90 % interval", "device-hours", *price, ""),
        rows=tuple(_cells(row, plan) for row in plan.rows),
        caption=(
            f"efficiency: against {counted(plan.question.devices[0], 'device', ',')} at equal {trained.examples} a "
            f"device; *: no other count is both faster and cheaper; >: recommended"
        ),
    )  # fmt: skip
    yield _scaling_table(plan)
    yield _load_table(plan)
    if document["calibration"] is not None:
        yield _calibration_table(document["calibration"])
    yield Table(
        title="What predicts",
        columns=("parameter", "value", "unit", "range", "meaning", "source"),
        rows=tuple(
            (p["name"], p["value"] if isinstance(p["value"], str) else _short(p["value"]), p["unit"], p["range"],
             p["meaning"], p["source"])
            for p in document["parameters"]
        ),
    )  # fmt: skip


def _cells(row: PlanRow, plan: Plan) -> tuple[str, ...]:
    choice, advice = row.choice, plan.advice
    marks = ("*" if choice.devices in advice.pareto else "") + (">" if row is advice.recommended else "")
    cost = () if row.cost is None else (_both(row.cost),)
    return (
        f"{choice.devices:,}", f"{choice.minibatch:,}", f"{choice.workers:,} x {choice.per_worker:,}", choice.algorithm,
        _both(row.examples_per_second), _both(row.efficiency.times(100)), _both(row.epochs), span(row.hours.value),
        f"{span(row.hours.low)} to {span(row.hours.high)}", _both(row.device_hours), *cost, marks,
    )  # fmt: skip


def _scaling_table(plan: Plan) -> Table:
    strong = {row.choice.devices: row for row in plan.scalings.strong}
    weak = {row.choice.devices: row for row in plan.scalings.weak}
    first = plan.question.devices[0]
    shared = plan.question.trained.examples
    return Table(
        title="Strong and weak scaling",
        columns=("devices", "strong: minibatch", f"{shared}/s", "speed-up", "time", "weak: minibatch", f"{shared}/s",
                 "speed-up", "time"),
        rows=tuple(
            (f"{devices:,}", *_half(strong.get(devices), strong.get(first)), *_half(weak.get(devices), weak.get(first)))
            for devices in plan.question.devices
        ),
        caption=(
            f"both begin with the recipe's {plan.question.trained.workers:,} workers on "
            f"{counted(first, 'device', ',')}: strong shares its minibatch among more devices, weak keeps the workers "
            f"of a device; speed-up in {shared}/s; the time is that to the goal"
        ),
    )  # fmt: skip


def _half(row: PlanRow | None, first: PlanRow | None) -> tuple[str | None, ...]:
    if row is None or first is None:
        return None, None, None, None
    speed_up = row.examples_per_second.value / first.examples_per_second.value
    return (
        f"{row.choice.minibatch:,}", _short(row.examples_per_second.value), f"{speed_up:.3g}", span(row.hours.value)
    )  # fmt: skip


def _load_table(plan: Plan) -> Table:
    examples = plan.question.trained.examples
    return Table(
        title="A device, and what fails",
        columns=("devices", f"{examples} each", "in a pass", "memory, GB", "of the peak, %", "a failure every",
                 "a checkpoint every", "time lost, %"),
        rows=tuple(
            (f"{row.choice.devices:,}", f"{row.choice.per_device:,}", f"{row.load.micro_batch:,}",
             _short(row.load.memory_bytes / 1e9), _known(row.load.peak_percent(row.seconds.value)), *_failing(row))
            for row in plan.rows
        ),
        caption="memory: weights, gradients, the optimizer's state and what forward keeps, so what is needed at least",
    )  # fmt: skip


def _known(value: float | None) -> str | None:
    return None if value is None else _short(value)


def _failing(row: PlanRow) -> tuple[str | None, ...]:
    if row.failures is None:
        return None, None, None
    checkpoint = span(row.failures["checkpoint_seconds"] / 3600)
    return span(row.failures["between_hours"]), checkpoint, _short(row.failures["lost_percent"])


def _calibration_table(calibration: dict[str, Any]) -> Table:
    return Table(
        title="Measured points",
        columns=("devices", "each", "step, s", "physics, s", "physics off by %", "its shape off by %", "where"),
        rows=tuple(
            (
                f"{point['devices']:,}", _short(point["per_device"]), f"{point['measured_seconds']:.4g}",
                f"{point['physics_seconds']:.4g}", f"{point['physics_percent']:+.1f}",
                f"{point['shape_percent']:+.1f}", point["place"],
            )
            for point in calibration["points"]
        ),
        caption=(
            f"the plan goes through the points; a step takes {calibration['level']:.3g} times what physics says, and "
            f"its shape is what is left after that"
        ),
    )  # fmt: skip
