"""``batchscale.measure.noise_scale``: the noise scale of one's own module, data and task."""

from __future__ import annotations

from typing import Any

from torch import nn

from batchscale.comm import World
from batchscale.errors import UsageError
from batchscale.measure.function import has_batch_norm
from batchscale.measure.noise_scale.blocks import estimate
from batchscale.measure.noise_scale.gradients import UnitGradients
from batchscale.measure.own import OwnState, own_examples, own_normalizer, own_task
from batchscale.noise_scale import LEVEL, NoiseEstimate
from batchscale.task import Task


def of_own(
    model: nn.Module,
    data: Any,
    task: str | Task = "classification",
    *,
    classes: int | None = None,
    per_worker: int = 1,
    population: int | None = None,
    level: float = LEVEL,
    seed: int = 0,
    world: World | None = None,
) -> NoiseEstimate:
    """The noise scale tr S / |G|^2 of a module's gradients over data, at fixed weights.

    Args:
        model: any module, measured in training mode; it is left as it was.
        data: the stated set: (inputs, targets) of tensors, items, or a map-style Dataset.
        task: a name, or one's own.
        classes: of a task by name; None: one more than the largest target.
        per_worker: n examples of a unit; 1 where every example has a gradient of its own.
        population: examples that the set was drawn from; None: the set is all.
        level: of the interval.
        seed: of what the model draws.
        world: the processes that share the units.

    Raises:
        UsageError: batch norm, or a loss of a worker, and n = 1; or fewer examples than two units.
    """
    examples = own_examples(data)
    learned = own_task(task, examples, classes)
    if per_worker < 2 and (has_batch_norm(model) or learned.unit == "worker"):
        raise UsageError(
            f"per_worker={per_worker}: with batch norm, or a loss of a whole worker, an example has no gradient of its "
            f"own; give the n of a worker"
        )
    if len(examples) < 2 * per_worker:
        raise UsageError(
            f"data: {len(examples)} examples hold no two units of {per_worker}, and the noise scale needs two "
            f"gradients; give more"
        )
    normalizer = own_normalizer(model)
    state = OwnState(model, learned, normalizer, normalizer.device)
    gradients = UnitGradients(state, per_worker, world or World(device=normalizer.device), seed)
    sums, _ = gradients.sums(examples)  # whole units of them
    return estimate(sums, per_worker, population or len(examples), level)
