"""The task of a run: named by the recipe, made for its data."""

from __future__ import annotations

import inspect
from typing import Any

from batchscale.data.examples import Splits
from batchscale.errors import RecipeError
from batchscale.members import TASKS
from batchscale.recipe import Recipe
from batchscale.recipe.stopping import StopAt
from batchscale.task import ScoreKind, Task, TaskBuilder
from batchscale.training.due import EVALUATION_NAMES


def make_task(recipe: Recipe, dataset: Splits) -> Task:
    """The recipe's task for these data.

    Raises:
        RecipeError: an option that the task has no place for, or data that do not tell their classes.
    """
    builder: TaskBuilder = TASKS.named(recipe.task, "task")
    if getattr(builder, "needs_classes", False) and dataset.num_classes < 1:
        raise RecipeError(
            f"data: does not tell how many classes it has, and task={recipe.task} needs to know; give data.classes=N"
        )
    known = inspect.signature(builder).parameters
    loss = recipe.loss
    options: dict[str, Any] = {"loss": loss.kind} if loss.kind != "cross_entropy" else {}
    options |= {"class_weights": loss.class_weights} if loss.class_weights else {}
    for option, value in options.items():
        if option not in known:
            entry = "kind" if option == "loss" else option
            raise RecipeError(f"loss.{entry}={value}: task={recipe.task} has one loss of its own; leave it out")
    if "masks" in known:
        options["masks"] = recipe.data.masks == "instances"
    return builder(dataset.num_classes, label_smoothing=loss.label_smoothing, **options)


def check_task(recipe: Recipe, task: Task) -> None:
    """Raise where a recipe asks of a task what it does not have.

    Raises:
        RecipeError: an option without a place, a score that the task has not or that is better the other way, or a task
            whose scores or counts take the names of other entries.
    """
    _check_names(task)
    if recipe.optimizer.gradient_noise and task.unit != "example":
        raise RecipeError(
            f"optimizer.gradient_noise={recipe.optimizer.gradient_noise:g}: multiplies every example's gradient, and "
            f"task={recipe.task} has one of a whole {task.unit}; leave it out"
        )
    if recipe.execution.stop_at is not None:
        _check_direction(recipe.execution.stop_at, task)
    if (bound := recipe.execution.stop_below.error_percent) is not None:
        setting = "execution.stop_below.error_percent"
        _check_range(task.score_named("error", setting), "below", bound, setting)


def _check_names(task: Task) -> None:
    """Every entry of a line of evaluations.jsonl has a name of its own."""
    names = [*EVALUATION_NAMES, task.examples]
    for name in (*(kind.key for kind in task.score_kinds), *task.count_names):
        if name in names:
            raise RecipeError(
                f"task={task.name}: its score or count {name!r} has the name of another entry of evaluations.jsonl, "
                f"which holds {', '.join(names)}; give it another name"
            )
        names.append(name)


def _check_direction(stop_at: StopAt, task: Task) -> None:
    kind = task.score_named(stop_at.score, "execution.stop_at.score")
    side = "below" if kind.better == "lower" else "above"
    for other, bound in (("below", stop_at.below), ("above", stop_at.above)):
        if bound is not None and other != side:
            raise RecipeError(
                f"execution.stop_at.{other}={bound:g}: {kind.name} is better where it is {kind.better}: use {side}"
            )
        if bound is not None:
            _check_range(kind, side, bound, f"execution.stop_at.{side}")


def _check_range(kind: ScoreKind, side: str, bound: float, setting: str) -> None:
    """Raise where a share in percent could never be past a goal."""
    if kind.unit == "%" and (bound <= 0 if side == "below" else bound >= 100):
        raise RecipeError(
            f"{setting}={bound:g}: {kind.name} is a percentage, from 0 to 100, so it is never {side} this; give a goal "
            f"between"
        )
