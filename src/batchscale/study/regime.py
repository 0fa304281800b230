"""Regime adaptation: a minibatch trained for the steps of the reference minibatch, in place of its epochs.

epochs' = r epochs,   r = steps an epoch at the reference minibatch / steps an epoch at kn

Everything that is stated in epochs (decays, warmup, changes of the momentum) is stretched likewise: the schedule is the
same function of the step. A minibatch that falls behind at the same epochs and not at the same steps has had too few
updates; one that still does is too large.

Source: Hoffer et al. 2017, "Train longer, generalize better", section 5.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

from batchscale.minibatch import Minibatch, StepPlan
from batchscale.recipe import Recipe, recipe_from

_DIGITS = 10**10  # epochs are cut off here: rounded up they would be a step too many


def regime_factor(recipe: Recipe, reference: tuple[int, int], minibatch: tuple[int, int], images: int) -> Fraction:
    """r, by how much an epoch of steps is shorter.

    Args:
        recipe: what becomes of an epoch's last examples is its own.
        reference: (k, n) of the reference minibatch.
        minibatch: (k, n).
        images: N.
    """
    plans = (StepPlan(Minibatch(*size), images, recipe.epochs, recipe.data.partial) for size in (reference, minibatch))
    first, second = (plan.phases[0].steps_per_epoch for plan in plans)
    return first / second


def with_steps_of(recipe: Recipe, factor: Fraction) -> Recipe:
    """The recipe with everything that it states in epochs so many times as long."""
    if factor == 1:
        return recipe
    content = recipe.model_dump(mode="json")

    def stretch(group: dict[str, Any], name: str) -> None:
        value = group.get(name)
        if isinstance(value, list):
            group[name] = [stretched(epoch, factor) for epoch in value]
        elif value is not None:
            group[name] = stretched(value, factor)

    stretch(content, "epochs")
    stretch(content["learning_rate"]["warmup"], "epochs")
    for name in ("epochs", "end"):
        stretch(content["learning_rate"]["decay"], name)
    for name in ("center_epochs", "period_epochs"):
        stretch(content["optimizer"], name)
    for change in content["optimizer"].get("momentum_changes", []):
        stretch(change, "epoch")
    # As many evaluations as at the reference, as nearly as whole epochs allow.
    evaluated = content["execution"]["evaluation_epochs"]
    content["execution"]["evaluation_epochs"] = max(round(evaluated * factor), 1)
    return recipe_from(content)


def stretched(epochs: float, factor: Fraction) -> float:
    """Epochs that hold the same steps."""
    return math.floor(Fraction(str(epochs)) * factor * _DIGITS) / _DIGITS
