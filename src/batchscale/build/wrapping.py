"""The recipe's optimizer, with what stands around it: clipping before its step, the weights' average after it."""

from __future__ import annotations

from torch import nn

from batchscale.errors import RecipeError
from batchscale.minibatch import StepPlan
from batchscale.recipe.optimizer import OPTIMIZERS
from batchscale.recipe.schema import Recipe
from batchscale.update.clip import ClippedGradient
from batchscale.update.ema import AveragedWeights
from batchscale.update.muon import hidden_matrices
from batchscale.update.optimizers import Optimizer
from batchscale.update.sgd import decay_groups


def matrices_for(recipe: Recipe, model: nn.Module) -> list[nn.Parameter]:
    """The matrices that the recipe's optimizer is for, [] for one that is for any tensors.

    Raises:
        RecipeError: the model has none.
    """
    if not recipe.optimizer.wants_matrices:
        return []
    matrices = hidden_matrices(model)
    if not matrices:
        raise RecipeError(
            f"optimizer.name={recipe.optimizer.name}: model.name={recipe.model.name} has no matrix for it: no "
            f"weight of two dimensions beside embeddings and the output head, which go by AdamW (kernels of "
            f"convolutions have four); use optimizer.name=adamw, or a net with linear layers such as transformer"
        )
    return matrices


def named_optimizer(recipe: Recipe, model: nn.Module, plan: StepPlan) -> Optimizer:
    """The optimizer that a recipe names, with its options; its momentum is the first one.

    Args:
        recipe: resolved.
        model: to be trained, with its initial weights.
        plan: of the steps, for durations in epochs.

    Raises:
        UsageError: the builder of a plugin fails.
    """
    entry = recipe.optimizer
    options = entry.options()
    for planned in ("momentum_changes", "scale_decay"):  # set before every step, by the plan
        options.pop(planned, None)
    decay_norms, decay_biases = options.pop("decay_norms", False), options.pop("decay_biases", False)
    if entry.goes_by_epochs:
        options["epoch_at"] = lambda steps: float(plan.epoch_at(steps))
    if entry.wants_matrices:
        options["matrices"] = matrices_for(recipe, model)
    groups = decay_groups(model, entry.weight_decay, decay_norms, decay_biases)
    build = OPTIMIZERS[entry.name]
    counts = " and ".join(str(len(tensors)) for tensors, _ in groups)
    with OPTIMIZERS.building(entry.name, "optimizer.name", f"groups of {counts} tensors"):
        optimizer = build(groups, **options)
    if not isinstance(optimizer, Optimizer):
        raise RecipeError(
            f"optimizer.name={entry.name}: its builder returned {type(optimizer).__name__}: must have step(lr) and "
            f"state(); mend it, or use another optimizer"
        )
    return optimizer


def surrounded(recipe: Recipe, model: nn.Module, optimizer: Optimizer) -> Optimizer:
    """An optimizer with what a recipe puts around it."""
    entry = recipe.optimizer
    if entry.clip_norm is not None:
        optimizer = ClippedGradient(optimizer, [p for p in model.parameters() if p.requires_grad], entry.clip_norm)
    if recipe.model.ema_decay is not None:
        optimizer = AveragedWeights(optimizer, model.state_dict(), recipe.model.ema_decay)
    return optimizer
