"""One instrument for all runs that are compared: what batch norm normalises an evaluation by.

Running averages lag behind the weights by about ten steps, so after few steps an evaluation measures them more than the
weights, and the more so the larger the minibatch. Where a study has a run of so few steps, all of its runs are measured
by recomputed statistics: what is compared is then the training, not its evaluation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from batchscale.build.derive import FEW_STEPS
from batchscale.build.planning import plan_of
from batchscale.recipe import Recipe
from batchscale.study.runner.cell import Cell, Outcome
from batchscale.words import counted


def recomputed(recipe: Recipe) -> Recipe:
    """The recipe with batch norm's statistics recomputed for evaluations, where it has running averages."""
    if recipe.batch_norm.running != "averages":
        return recipe
    return recipe.model_copy(update={"batch_norm": recipe.batch_norm.model_copy(update={"running": "recomputed"})})


def measured_alike(cells: Sequence[Cell], training_images: int) -> list[Cell]:
    """The cells as they are, or, where a run of running averages has few steps, all with recomputed statistics.

    Args:
        cells: of a study.
        training_images: N.
    """
    if not any(_lags(cell.recipe, training_images) for cell in cells):
        return list(cells)
    return [replace(cell, recipe=recomputed(cell.recipe)) for cell in cells]


def words_of(cells: Sequence[Cell]) -> str:
    """The instrument as a sentence for what was asked; empty for running averages."""
    if not any(cell.recipe.batch_norm.running == "recomputed" for cell in cells):
        return ""
    return " Every evaluation recomputes batch norm's statistics, where the net has batch norm."


def lagging(outcomes: Sequence[Outcome]) -> tuple[str, ...]:
    """A warning where runs whose evaluation lags were compared, as in a grid, whose ways are the user's own."""
    few = {outcome.cell.key for outcome in outcomes if _lagged(outcome)}
    if not few:
        return ()
    return (
        f"{counted(len(few), 'run')} of fewer than {FEW_STEPS} steps evaluated by batch norm's running averages (where "
        f"the net has batch norm), which lag about ten steps behind the weights; batch_norm.running=recomputed "
        f"measures the weights",
    )


def _lags(recipe: Recipe, training_images: int) -> bool:
    return recipe.batch_norm.running == "averages" and plan_of(recipe, training_images).total_steps < FEW_STEPS


def _lagged(outcome: Outcome) -> bool:
    recipe, result = outcome.cell.recipe, outcome.result
    if recipe.batch_norm.running != "averages" or result is None or result.status != "done" or not result.epochs:
        return False
    return result.steps * recipe.epochs / result.epochs < FEW_STEPS  # of the whole plan, also where a goal ended it
