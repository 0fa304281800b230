"""The JSON of `plan RECIPE`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from batchscale.cost.planning.advice import LEAST_GAIN
from batchscale.cost.planning.calibration import residuals
from batchscale.cost.planning.estimate import LEVEL
from batchscale.cost.planning.plan import Plan
from batchscale.cost.planning.rows import PlanRow

RULE = (
    f"the next device count shortens the time by less than (devices' / devices)^{LEAST_GAIN:g}: a doubling by less "
    f"than a factor of {2**LEAST_GAIN:.2f}"
)


def plan_document(plan: Plan, parameters: list[dict[str, Any]]) -> dict[str, Any]:
    """All of the plan; ``interval`` is that of ``hours``, and ``intervals`` has all.

    Args:
        plan: what came out.
        parameters: of what predicts, each with its name, value, range, meaning and source.
    """
    question, advice = plan.question, plan.advice
    trained, goal = question.trained, question.goal
    recommended = row_json(advice.recommended, trained.parts)
    return {
        "recipe": trained.recipe,
        "cluster": question.cluster,
        "unit": trained.examples,
        "interval_percent": round(100 * LEVEL),
        "rows": [row_json(row, trained.parts) for row in plan.rows],
        "recommended": {**recommended, "why": advice.why},
        "stops_paying_at": advice.stops_paying_at,
        "stops_paying_rule": RULE,
        "pareto": list(advice.pareto),
        "scaling": {
            "strong": [row_json(row, trained.parts) for row in plan.scalings.strong],
            "weak": [row_json(row, trained.parts) for row in plan.scalings.weak],
        },
        "goal": {
            "words": goal.words,
            "minibatch": goal.minibatch,
            "epochs": goal.epochs,
            "critical_minibatch": None if goal.critical is None else goal.critical.value,
            "critical_interval": None if goal.critical is None else [goal.critical.low, goal.critical.high],
            "critical_source": None if goal.critical is None else goal.critical.words,
            "studied": None if goal.studied is None else list(goal.studied),
        },
        "price_per_device_hour": question.price,
        "calibration": residuals(question.pace),
        "parameters": parameters,
        "warnings": list(plan.warnings),
    }


def row_json(row: PlanRow, parts: tuple[str, int]) -> dict[str, Any]:
    """One row."""
    estimates = {
        "step_seconds": row.seconds,
        "examples_per_second": row.examples_per_second,
        "efficiency": row.efficiency,
        "epochs": row.epochs,
        "hours": row.hours,
        "device_hours": row.device_hours,
    }
    word, each = parts
    if word:
        estimates[f"{word}_per_second"] = row.examples_per_second.times(each)
    intervals: Mapping[str, list[float] | None] = {name: estimate.ends for name, estimate in estimates.items()}
    return {
        "devices": row.choice.devices,
        "minibatch": row.choice.minibatch,
        "workers": row.choice.workers,
        "per_worker": row.choice.per_worker,
        "per_device": row.choice.per_device,
        "algorithm": row.choice.algorithm,
        **{name: estimate.value for name, estimate in estimates.items()},
        "cost": None if row.cost is None else row.cost.value,
        "peak_percent": row.load.peak_percent(row.seconds.value),
        "micro_batch": row.load.micro_batch,
        "memory_gbyte": row.load.memory_bytes / 1e9,
        "failures": row.failures,
        "interval": row.hours.ends,
        "intervals": {**intervals, "cost": None if row.cost is None else row.cost.ends},
    }
