"""The task of a run: named by the recipe, made for its data."""

from __future__ import annotations

from batchscale.data.examples import Splits
from batchscale.errors import RecipeError
from batchscale.members import TASKS
from batchscale.recipe import Recipe
from batchscale.task import Task, TaskBuilder


def make_task(recipe: Recipe, dataset: Splits) -> Task:
    """The recipe's task for these data.

    Raises:
        RecipeError: an option that the task has no place for.
    """
    builder: TaskBuilder = TASKS.named(recipe.task, "task")
    return builder(dataset.num_classes, label_smoothing=recipe.loss.label_smoothing)


def check_task(recipe: Recipe, task: Task) -> None:
    """Raise where a recipe asks of a task what it does not have.

    Raises:
        RecipeError: an option without a place, or a score that the task has not.
    """
    if recipe.optimizer.gradient_noise and task.unit != "example":
        raise RecipeError(
            f"optimizer.gradient_noise={recipe.optimizer.gradient_noise:g}: multiplies every example's gradient, and "
            f"task={recipe.task} has one of a whole {task.unit}; leave it out"
        )
    if recipe.execution.stop_at is not None:
        task.score_named(recipe.execution.stop_at.score, "execution.stop_at.score")
    if recipe.execution.stop_below.error_percent is not None:
        task.score_named("error", "execution.stop_below.error_percent")
