"""One cell of a study: a resolved recipe with the labels that place it, and what became of its run.

key = kn, seed and sha256(identity of the resolved recipe), so two cells that train the same thing share one run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from batchscale.recipe import Recipe, identity, load_recipe
from batchscale.records import Result
from batchscale.update.schedule import scaled_lr

Status = Literal["done", "diverged", "failed", "missing"]


@dataclass(frozen=True)
class Cell:
    """One run that a study asks for.

    Args:
        labels: where it stands in the study, such as {"way": "no warmup", "seed": 1}.
        recipe: resolved.
        processes: W; part of the key only where the study varies it, as a label "processes".
    """

    labels: dict[str, Any]
    recipe: Recipe
    processes: int = 1

    @cached_property
    def key(self) -> str:
        """Name of the run's folder."""
        content: Any = identity(self.recipe)
        if "processes" in self.labels:
            content = [content, self.processes]
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]
        return f"kn{self.minibatch_images}-seed{self.recipe.seed}-{digest}"

    @property
    def minibatch_images(self) -> int:
        """kn of the first phase."""
        return self.recipe.minibatch.workers * self.recipe.minibatch.per_worker

    @property
    def target_lr(self) -> float:
        """The lr after warmup, before decay, of the first phase."""
        entry = self.recipe.learning_rate
        return scaled_lr(entry.reference, entry.reference_minibatch, self.minibatch_images, entry.scaling)


@dataclass(frozen=True)
class Change:
    """One way to train: its name, and the overrides that make it."""

    name: str
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """What became of a cell.

    Args:
        cell: asked for.
        folder: of its run.
        status: "missing" for one that was not run yet.
        result: of a run that is done or has diverged.
        error: of one that failed: one line.
    """

    cell: Cell
    folder: Path
    status: Status
    result: Result | None = field(default=None, repr=False)
    error: str | None = None

    def row(self) -> dict[str, Any]:
        """The labels and the result, flat."""
        found = self.result
        held_out = found.evaluated_on == "holdout" if found else self.cell.recipe.data.holdout > 0
        return {
            **self.cell.labels,
            "minibatch": self.cell.minibatch_images,
            "lr": self.cell.target_lr,
            "seed": self.cell.recipe.seed,
            "status": self.status,
            **error_entries(found.test_error_percent if found else None, held_out),
            "train_loss": found and found.train_loss,
            "steps": found and found.steps,
            "epochs": found and found.epochs,
            "images_per_second": found and found.images_per_second,
            "wall_seconds": found and found.wall_seconds,
            "folder": f"runs/{self.folder.name}",
            "error": self.error,
        }


def error_entries(error: float | None, held_out: bool) -> dict[str, float | None]:
    """An error in percent under the name that says what it is of; the test error's is there in any case.

    Args:
        error: of a run, or a mean of several.
        held_out: it is of held-out training images (data.holdout), not of the test set.
    """
    return {"test_error_percent": None, "held_out_error_percent": error} if held_out else {"test_error_percent": error}


def cells(
    recipe_name: str,
    overrides: Iterable[str],
    changes: Sequence[Change],
    seeds: int,
    processes: int = 1,
) -> list[Cell]:
    """Changes x seeds; seeds are the recipe's, and the next ones.

    Args:
        recipe_name: a shipped recipe's name, or a YAML file.
        overrides: of all cells.
        changes: one label "way" each.
        seeds: how many.
        processes: W.

    Raises:
        RecipeError: an entry that is unknown or out of range.
    """
    made = []
    for change in changes:
        recipe = load_recipe(recipe_name, [*overrides, *change.overrides])
        for seed in range(recipe.seed, recipe.seed + seeds):
            labels = {"way": change.name, "seed": seed}
            made.append(Cell(labels, recipe.model_copy(update={"seed": seed}), processes))
    return made
