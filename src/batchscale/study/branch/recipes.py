"""The recipes of a trunk and of its branches: what each changes, and nothing else."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from batchscale.build.constants import run_constants
from batchscale.build.planning import plan_of
from batchscale.build.trunk import Trunk, run_plan
from batchscale.recipe import Recipe, recipe_from
from batchscale.study.branch.window import Window
from batchscale.study.evidence.instrument import recomputed

_CHUNK = 32  # examples whose loss is recorded together: how far the evaluation set tells two branches apart
_SELDOM = 10**6  # epochs: nothing is evaluated by epochs


def minibatch_of(recipe: Recipe) -> int:
    """kn of the first phase."""
    return recipe.minibatch.workers * recipe.minibatch.per_worker


def end_after(examples: int, minibatch: int, training_images: int) -> float:
    """The epochs of a run that ends with the step after which it has seen so many examples.

    Half a step less: a run ends with the first step at or after its epochs, and a float may lie a little above.
    """
    return float(Fraction(2 * examples - minibatch, 2 * training_images))


def trunk_recipe(recipe: Recipe, window: Window, steps: tuple[int, ...], images: int, lr_factor: float) -> Recipe:
    """A trunk that ends at the last of its checkpoints, at the lr that the whole recipe has there.

    Args:
        recipe: as asked.
        window: of the branches: the trunk averages its weights as they do, which leaves its training as it is.
        steps: of its checkpoints, rising.
        images: N.
        lr_factor: on its lr.
    """
    content, kn = measured_without_lag(recipe).model_dump(mode="json"), minibatch_of(recipe)
    decay = content["learning_rate"]["decay"]
    if decay["kind"] in ("cosine", "polynomial") and decay["end"] is None:
        decay["end"] = float(Fraction(plan_of(recipe, images).total_steps * kn, images))
    content["epochs"] = end_after(steps[-1] * kn, kn, images)
    _scale_lr(content, lr_factor)
    _watch(content, evaluation_at=steps, kept=steps)
    return _averaging(content, window, images)


def measured_without_lag(recipe: Recipe) -> Recipe:
    """The recipe as the trunk and all branches are evaluated: running averages lag by steps, so in examples by f times
    as many at factor f, and would be taken for what the minibatch costs. Nets of sequences have no batch norm."""
    return recipe if recipe.task == "language" else recomputed(recipe)


def branch_recipe(
    trunk: Trunk, window: Window, factor: int, rule: str, seed: int, warmup: int, images: int, lr_factor: float = 1.0
) -> Recipe:
    """A branch of one factor, as long as the window.

    Args:
        trunk: with the step where it begins.
        window: of all branches.
        factor: f.
        rule: how its lr, and what else hangs on the minibatch, follow f; at factor 1 all rules are one.
        seed: from 1 on: orders the examples, alike at every factor.
        warmup: examples over which the lr goes from the trunk's to the rule's; 0: at once.
        images: N.
        lr_factor: on the lr of all of the branch, of a control, which is evaluated at its end alone.
    """
    content, kn = trunk.recipe.model_dump(mode="json"), factor * window.minibatch
    first = trunk.step * window.minibatch
    content["minibatch"]["workers"] *= factor
    content["epochs"] = end_after(first + window.examples, kn, images)
    content["branch"] = {"seed": seed}
    if factor > 1:
        content["learning_rate"]["scaling"] = rule
        content["branch"]["warmup"] = warmup
    _scale_lr(content, lr_factor)
    points = window.points if lr_factor == 1 else window.points[-1:]
    _watch(content, evaluation_at=tuple(trunk.step + point // kn for point in points))
    return _averaging(content, window, images, trunk)


def longer_recipe(branch: Trunk, window: Window, images: int, goal: float) -> Recipe:
    """A branch that goes on from the end of another one, up to twice the window, or to its goal.

    Args:
        branch: that it goes on with; its step is the last one.
        window: of all branches.
        images: N.
        goal: the loss that it is to reach.
    """
    content, kn = branch.recipe.model_dump(mode="json"), minibatch_of(branch.recipe)
    assert branch.trunk is not None
    first = branch.trunk.step * window.minibatch
    content["epochs"] = end_after(first + 2 * window.examples, kn, images)
    content["branch"] = {"seed": 0}
    _watch(content, evaluation_at=tuple(branch.step + point // kn for point in window.points))
    if goal > 0:
        content["execution"]["stop_below"]["loss"] = goal
    return recipe_from(content)


def _scale_lr(content: dict[str, Any], factor: float) -> None:
    entry = content["learning_rate"]
    entry["reference"] *= factor
    if entry["warmup"]["start"] is not None:
        entry["warmup"]["start"] *= factor


def _averaging(content: dict[str, Any], window: Window, images: int, trunk: Trunk | None = None) -> Recipe:
    """The recipe with averaged weights of the window's half-life in examples, whatever minibatch and rule."""
    recipe = recipe_from(content)
    first = trunk.step if trunk else 0
    constants = run_constants(recipe, run_plan(recipe, images, trunk), trunk)
    examples = minibatch_of(recipe) / constants.averaged_steps(first)  # of a step at which the decay is as stated
    return recipe.model_copy(update={"model": recipe.model.model_copy(update={"ema_decay": window.decay(examples)})})


def _watch(content: dict[str, Any], evaluation_at: tuple[int, ...], kept: tuple[int, ...] = ()) -> None:
    """Evaluations at these steps alone, chunk by chunk; no goal that would end the run."""
    chunk = content["numerics"]["evaluation_chunk"]
    content["numerics"]["evaluation_chunk"] = min(chunk, _CHUNK)
    content["execution"] |= {
        "keep_checkpoints": {"steps": kept},
        "evaluation_epochs": _SELDOM,
        "evaluation_steps": None,
        "evaluation_at": evaluation_at,
        "evaluation_losses": True,
        "stop_below": {},
        "stop_at": None,
    }
