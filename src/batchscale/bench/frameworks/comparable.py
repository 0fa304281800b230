"""What all frameworks can train alike: which recipes, and what is changed in them, with a note for each change."""

from __future__ import annotations

from collections.abc import Sequence

from batchscale.errors import RecipeError, UsageError
from batchscale.recipe import Recipe, recipe_from

NETS = ("cnn", "unet")
"""Those that every program has."""

_RULES = ("linear", "sqrt", "none")
_SHIPPED = "fashion-mnist-cnn or nuclei-unet"


def comparable(recipe: Recipe, processes: Sequence[int]) -> tuple[Recipe, list[str]]:
    """The recipe as every framework can train it, and notes on what was changed.

    Args:
        recipe: resolved.
        processes: W, all of them.

    Raises:
        RecipeError: a net, a loss, an optimizer or a rule that not every program has.
        UsageError: a minibatch that does not part over the processes.
    """
    _check(recipe)
    images = recipe.minibatch.workers * recipe.minibatch.per_worker
    for count in processes:
        if images % count or images // count < 2:
            raise UsageError(
                f"--processes={count}: the strong series parts the minibatch of {images} images over the processes, at "
                f"least 2 for each (batch norm needs two); use divisors of {images}, up to {images // 2}"
            )
    changes = ["execution.device=cpu", "numerics.exact=false", "numerics.threads=1", "numerics.micro_batch=auto"]
    notes = []
    if recipe.data.partial != "drop":
        changes.append("data.partial=drop")
        notes.append("an epoch is a whole number of minibatches for all: the rest of a shuffle is left out")
    if recipe.minibatch.growth.kind != "none":
        changes.append("minibatch.growth={kind: none}")
        notes.append("the minibatch does not grow")
    if recipe.data.augment.flip or recipe.data.augment.crop != "none":
        changes += ["data.augment.flip=false", "data.augment.crop=none"]
        notes.append("augmentation is off for all")
    if recipe.optimizer.weight_decay:
        changes.append("optimizer.weight_decay=0")
        notes.append("weight decay is off for all: frameworks do not mean the same by it")
    return recipe_from(recipe.model_dump(), changes), notes


def _check(recipe: Recipe) -> None:
    if recipe.model.name not in NETS:
        raise RecipeError(
            f"model.name={recipe.model.name}: bench frameworks has the nets {' and '.join(NETS)} in every framework; "
            f"use a recipe with one of them, such as {_SHIPPED}"
        )
    loss = {"cnn": ("classification", "cross_entropy"), "unet": ("segmentation", "binary")}[recipe.model.name]
    if (recipe.task, recipe.loss.kind) != loss or recipe.loss.label_smoothing:
        raise RecipeError(
            f"task={recipe.task} with loss.kind={recipe.loss.kind}: bench frameworks has task={loss[0]} with "
            f"loss.kind={loss[1]}, without smoothing, for model.name={recipe.model.name}; use {_SHIPPED}"
        )
    entry = recipe.optimizer
    if entry.name not in ("sgd", "adamw") or entry.clip_norm is not None or entry.gradient_noise:
        raise RecipeError(
            f"optimizer.name={entry.name}: bench frameworks compares plain momentum SGD or AdamW; use "
            f"optimizer.name=sgd or adamw, without clip_norm and gradient_noise"
        )
    if recipe.learning_rate.scaling not in _RULES:
        raise RecipeError(
            f"learning_rate.scaling={recipe.learning_rate.scaling}: changes constants beside the lr; bench frameworks "
            f"takes {', '.join(_RULES)}"
        )
    if recipe.precision != "fp32":
        raise RecipeError(f"precision={recipe.precision}: bench frameworks trains in float32; use precision=fp32")
