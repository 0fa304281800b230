"""What a plan's page needs to plan anew under another link, price or number of devices, without this program.

The page's script holds the step time once more, in plain JavaScript: fewer than a hundred lines, for links of hosts
alone change. A test runs both on the same numbers.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from batchscale.cost.planning.advice import LEAST_GAIN
from batchscale.cost.planning.physics import LayerPhysics
from batchscale.cost.planning.plan import Plan
from batchscale.cost.planning.risks import RESTART_SECONDS
from batchscale.cost.planning.rows import choices_of


def sliders(plan: Plan) -> dict[str, Any] | None:
    """Numbers for the script; None where there is no link to move.

    ``ways``: pairs (k, n) at each number of devices; ``work``: by the examples of a device.

    ``factor``: what the plan's step time is multiplied by at each number of devices, by its measured points;
    ``low``, ``high``: ends of the hours' interval over the hours.
    """
    question, physics = plan.question, plan.question.pace.physics
    if not isinstance(physics, LayerPhysics) or physics.cluster.between_gbit_per_second is None:
        return None
    if physics.cluster.cores_per_host is not None or physics.cluster.all_reduce:
        return None  # processes that share a host's cores, and measured all-reduces: the script knows neither
    rows, trained, goal = plan.rows, question.trained, question.goal
    counts = np.array([float(row.choice.devices) for row in rows])
    ways = [list(choices_of(question, row.choice.devices)) for row in rows]
    sizes = {math.ceil(k / row.choice.devices) * n for row, pairs in zip(rows, ways, strict=True) for k, n in pairs}
    risks = None if question.risks is None else question.risks.at(counts)
    link = physics.cluster.link()
    return {
        "recipe": trained.recipe,
        "examples": trained.examples,
        "devices": [row.choice.devices for row in rows],
        "chosen": plan.advice.recommended.choice.devices,
        "ways": ways,
        "epoch_examples": trained.epoch_examples,
        "epochs": goal.epochs,
        "epochs_minibatch": goal.minibatch,
        "critical_minibatch": None if goal.critical is None else goal.critical.value,
        "price": question.price,
        "gbit": link.gbit_per_second,
        "microseconds": link.microseconds,
        "least_gain": LEAST_GAIN,
        "factor": [float(value) for value in np.exp(question.pace.middle(counts))],
        "between_seconds": None if risks is None else [float(value) for value in risks.between_seconds],
        "lost_share": None if risks is None else [float(value) for value in risks.lost_share],
        "restart_seconds": RESTART_SECONDS,
        "low": [row.hours.low / row.hours.value for row in rows],
        "high": [row.hours.high / row.hours.value for row in rows],
        "traffic": physics.traffic(counts),
        "work": {str(size): physics.work(counts, size) for size in sorted(sizes)},
    }
