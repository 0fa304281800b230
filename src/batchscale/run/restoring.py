"""The state that a run starts its first step from: fresh, its own checkpoint's, or its trunk's."""

from __future__ import annotations

import torch

from batchscale.errors import CheckpointError
from batchscale.minibatch import StepPlan
from batchscale.run.earlier import as_of_now
from batchscale.run.fingerprint import check_resume
from batchscale.run.opening import Opened
from batchscale.training import checkpoint as checkpoints
from batchscale.training.parts import AVERAGES, MODEL, Parts
from batchscale.training.totals import Totals

_OF_ONE_ALONE = ("aggregate.", "optimizer.ema")
"""State that a trunk may have without its branch, and a branch without its trunk: exact mode's, averaged weights."""


def take_up(parts: Parts, opened: Opened, prints: dict[str, str]) -> tuple[int, Totals]:
    """Bring the parts into the state that the run goes on from; all processes call this together.

    Args:
        parts: of the run.
        opened: what it goes on from.
        prints: how it is computed now.

    Returns:
        Steps done before, and what was summed up in them: nothing yet for a branch that begins.

    Raises:
        CheckpointError: the state is another model's.
        ExactnessError: an exact run would not go on as it began.
    """
    checkpoint = opened.checkpoint
    if checkpoint is None:
        _share_initial_weights(parts)
        return 0, Totals()
    if opened.at_trunk:
        if parts.growing is not None:
            parts.growing.restore(checkpoint.totals.get("growth", {}))
        _restore(parts, _carried(as_of_now(checkpoint, parts, _trunk_plan(parts, opened)), parts), checkpoint.step)
        return checkpoint.step, Totals()
    if parts.recipe.numerics.exact or checkpoint.fingerprint.get("exact") == "True":
        check_resume(checkpoint.fingerprint, prints)
    if parts.growing is not None:
        parts.growing.restore(checkpoint.totals.get("growth", {}))
    checkpoint = as_of_now(checkpoint, parts, parts.step.plan)
    _restore(parts, checkpoint.tensors, checkpoint.step)
    return checkpoint.step, Totals.from_json(checkpoint.totals)


def _trunk_plan(parts: Parts, opened: Opened) -> StepPlan:
    """The steps behind the state: the trunk's own."""
    plan = parts.step.plan
    return opened.trunk.plan(plan.training_images) if opened.trunk else plan


def _carried(checkpoint: checkpoints.Checkpoint, parts: Parts) -> dict[str, torch.Tensor]:
    """A trunk's state, with what the branch alone has as it is at a beginning, without what the trunk alone has."""
    fresh = {name: tensor for name, tensor in parts.state().items() if name.startswith(_OF_ONE_ALONE)}
    carried = {
        name: tensor
        for name, tensor in checkpoint.tensors.items()
        if not name.startswith(_OF_ONE_ALONE) or name in fresh
    }
    return fresh | carried


def _restore(parts: Parts, tensors: dict[str, torch.Tensor], step: int) -> None:
    state = parts.state()
    differing = sorted(set(state) ^ set(tensors))
    if differing:
        raise CheckpointError(f"checkpoint of step {step}: holds another model's state ({differing[0]!r} differs)")
    for name, tensor in state.items():
        saved = tensors[name]
        if saved.shape != tensor.shape or saved.dtype != tensor.dtype:
            raise CheckpointError(
                f"checkpoint of step {step}: {name} is {saved.dtype} {tuple(saved.shape)} there, "
                f"{tensor.dtype} {tuple(tensor.shape)} here: another model"
            )
        with torch.no_grad():
            tensor.copy_(saved)


def _share_initial_weights(parts: Parts) -> None:
    """Everyone starts from rank 0's weights (they differ only for a module handed in with weights of its own)."""
    weights = {name: t for name, t in parts.state().items() if name.startswith((MODEL, AVERAGES))}
    digest = checkpoints.tensors_sha256(weights)
    if len(set(parts.world.gather(digest))) > 1:
        first = parts.world.from_rank_zero(lambda: {n: t.cpu() for n, t in weights.items()})
        with torch.no_grad():
            for name, tensor in weights.items():
                tensor.copy_(first[name])
