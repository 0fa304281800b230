"""The Python interface: the same run from code, with one's own module and tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from batchscale.errors import RecipeError, UsageError
from batchscale.recipe import Recipe, load_recipe, recipe_from
from batchscale.records import Result
from batchscale.run.job import BranchPoint, Job, Resume
from batchscale.run.start import start
from batchscale.task.base import check_kind

if TYPE_CHECKING:
    from batchscale.data import OwnData
    from batchscale.task import Task


def train(
    recipe: str | Path | Mapping[str, Any] | Recipe,
    overrides: Iterable[str] = (),
    *,
    model: torch.nn.Module | None = None,
    data: OwnData | None = None,
    task: Task | str | None = None,
    data_folder: str | Path | None = None,
    branch: str | Path | None = None,
    at: int | None = None,
    out: str | Path | None = None,
    resume: Resume = "no",
    quiet: bool = False,
) -> Result:
    """Train a recipe on this process, or, under torchrun, srun or mpirun, on all of its processes.

    w <- update(w, sum_j (1 / kn) sum_{x in B_j} grad l(x, w)), every step

    Args:
        recipe: a shipped recipe's name, a file, a mapping of entries, or a Recipe.
        overrides: "dotted.key=value" each.
        model: one's own module, trained in place (recipe entry model.name: own).
        data: one's own data set (recipe entry data.name: own): a Dataset, a pair (training, test) of map-style torch
            Datasets, of tensors (inputs, targets) or of lists of items, or batchscale.data.examples.Splits.
        task: one's own task (recipe entry task: its name, for the records), or the name of a task.
        data_folder: where the official data sets lie.
        branch: the folder of a run that this one goes on from, under the recipe given here.
        at: the step of its checkpoint; None for the newest.
        out: the run's folder; None writes nothing.
        resume: "no", "yes", or "auto".
        quiet: no progress on standard error.

    Returns:
        The result, as in result.json.

    Raises:
        UsageError: a mistake in the recipe, the data or the folder; its text is one clear line.
        RunError: the run broke.

    Examples:
        >>> result = batchscale.train("digits-cnn", ["minibatch.workers=4", "epochs=1"], quiet=True)
        >>> result.status, result.workers * result.per_worker, result.steps
        ('done', 128, 12)
    """
    named, task = (task, None) if isinstance(task, str) else (None, task)
    check_kind(task)
    _check_module(model)
    handed_in = [f"{part}.name=own" for part, thing in (("model", model), ("data", data)) if thing is not None]
    name_of_task = task.name if task is not None else named
    changes = [*overrides, *handed_in, *([f"task={name_of_task}"] if name_of_task is not None else [])]
    if isinstance(recipe, Recipe):
        resolved, name = recipe_from(recipe.model_dump(), changes), "recipe"
    elif isinstance(recipe, Mapping):
        resolved, name = recipe_from(recipe, changes), "recipe"
    else:
        resolved, name = load_recipe(recipe, changes), Path(recipe).stem
    folder = Path(data_folder) if data_folder is not None else None
    if at is not None and branch is None:
        raise UsageError(f"at={at}: of which run? give it with branch=RUN")
    point = BranchPoint(Path(branch), at) if branch is not None else None
    job = Job(name, resolved, Path(out) if out is not None else None, folder, resume, quiet, branch=point)
    return start(job, model=model, data=data, task=task)


def _check_module(model: object) -> None:
    """Raise where a model is no object of a module.

    Raises:
        RecipeError: what it is instead.
    """
    if model is not None and not isinstance(model, torch.nn.Module):
        what = f"the class {model.__name__}" if isinstance(model, type) else f"a {type(model).__name__}"
        raise RecipeError(f"model: is {what}: must be an object of a subclass of torch.nn.Module; give one")
