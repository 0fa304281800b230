"""Growth that is decided during the run, as a recipe states it: the plan that decisions extend."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence
from typing import Any

from batchscale.errors import RecipeError
from batchscale.minibatch import StepPlan
from batchscale.recipe.minibatch import DecidedGrowth
from batchscale.recipe.schema import Recipe
from batchscale.update.growing import Decision, GrowingPlan, GrowthRule


def with_decisions(recipe: Recipe, plan: StepPlan, earlier: Sequence[Decision] = ()) -> StepPlan:
    """A plan that further decisions may change, where the recipe grows by a measure; else the plan as it is.

    Args:
        recipe: resolved.
        plan: as stated.
        earlier: of a branch, the decisions of its trunk, which the plan holds.

    Raises:
        RecipeError: decisions that do not fit the data or the run.
    """
    entry, data = recipe.minibatch.growth, plan.training_images
    if not isinstance(entry, DecidedGrowth):
        return plan
    rule = GrowthRule(
        entry.every_examples or data, entry.confirm, entry.hold_examples, entry.delay_steps, entry.largest
    )
    kind = f"minibatch.growth.kind={entry.kind}"
    if entry.largest > data:
        raise RecipeError(
            f"minibatch.growth.largest={entry.largest}: must not exceed the {data} training images; lower it"
        )
    if plan.partial == "drop":
        raise RecipeError(
            f"{kind} with data.partial=drop: a decision takes effect inside an epoch, whose last partial minibatch "
            f"would be another one; use data.partial=carry"
        )
    growing = GrowingPlan(plan, rule, earlier)
    _check_measured(entry, growing)
    if not earlier and not growing.may_decide:
        raise RecipeError(
            f"{kind}: the first decision, {rule.every_examples} images into the run, takes effect after step "
            f"{growing.effect_step}, and the run has {plan.total_steps} steps; lower minibatch.growth.every_examples "
            f"or minibatch.growth.delay_steps, or train longer"
        )
    return growing


def _check_measured(entry: DecidedGrowth, plan: GrowingPlan) -> None:
    """Raise where no step between two decisions may be a measured one."""
    every, sizes = entry.measures_noise_every(), plan.reachable()
    judged = max((minibatch.images for minibatch in sizes[:-1]), default=0)  # the largest may not grow
    if every is not None and every * judged > plan.rule.every_examples:
        raise RecipeError(
            f"minibatch.growth.every_examples={plan.rule.every_examples}: holds fewer than {every} steps of {judged} "
            f"images, and only every {every}th is measured (minibatch.growth.measure_steps); give at least "
            f"{every * judged}, or lower measure_steps"
        )


def decisions_of(totals: Mapping[str, Any]) -> tuple[Decision, ...]:
    """The decisions about the minibatch that a checkpoint's totals hold."""
    return tuple(Decision.from_json(decision) for decision in totals.get("growth", {}).get("decisions", ()))


class KeptSteps(Container[int]):
    """Steps whose checkpoints stay; those of epochs follow a plan that decisions may change.

    Args:
        plan: of the run.
        steps: by their numbers.
        epochs: the first step at or after each.
    """

    def __init__(self, plan: StepPlan, steps: Sequence[int], epochs: Sequence[float]) -> None:
        self._plan, self._steps = plan, frozenset(steps)
        self._epochs = tuple(epochs)

    def __contains__(self, step: object) -> bool:
        if not isinstance(step, int) or step < 1:
            return False
        return step in self._steps or any(math.ceil(self._plan.steps(epoch)) == step for epoch in self._epochs)
