"""One cell of a study: a resolved recipe with the labels that place it, and what became of its run.

key = kn, seed and sha256(identity of the resolved recipe), so two cells that train the same thing share one run.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from batchscale.recipe import Recipe, identity
from batchscale.records import Result
from batchscale.records.score import Score
from batchscale.run.job import BranchPoint
from batchscale.update.schedule import scaled_lr

if TYPE_CHECKING:  # it imports torch, which takes seconds
    from batchscale.build.trunk import Trunk

Status = Literal["done", "diverged", "failed", "missing"]
_NO_SCORE, _ITS_TASK = Score(name="error", value=None, unit="%"), "classification"  # of a run without a result


@dataclass(frozen=True)
class Cell:
    """One run that a study asks for.

    Args:
        labels: where it stands in the study, such as {"way": "no warmup", "seed": 1}.
        recipe: resolved.
        processes: W; part of the key only where the study varies it, as a label "processes".
        trunk: of a branch: its folder holds the run, and the checkpoint of its step once that has ended.
        first_epoch: where a branch begins.
    """

    labels: dict[str, Any]
    recipe: Recipe
    processes: int = 1
    trunk: Trunk | None = None
    first_epoch: float = 0.0

    @cached_property
    def key(self) -> str:
        """Name of the run's folder."""
        content: Any = identity(self.recipe)
        if self.trunk is not None:
            content = [content, _origin(self.trunk)]
        if "processes" in self.labels:
            content = [content, self.processes]
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]
        return f"kn{self.minibatch_images}-seed{self.recipe.seed}-{digest}"

    @property
    def branch(self) -> BranchPoint | None:
        """Where it goes on from, of a branch."""
        return None if self.trunk is None else BranchPoint(Path(self.trunk.folder), self.trunk.step)

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
        result = self.result
        cell = self.cell
        general = {"minibatch": cell.minibatch_images, "lr": cell.target_lr, "seed": cell.recipe.seed}
        return {
            **cell.labels,
            **{name: value for name, value in general.items() if name not in cell.labels},
            "status": self.status,
            **self._score(result),
            "train_loss": result and result.train_loss,
            "steps": result and result.steps,
            "epochs": result and result.epochs,
            "images_per_second": result and result.images_per_second,
            "wall_seconds": result and result.wall_seconds,
            "folder": f"runs/{self.folder.name}",
            "error": self.error,
        }

    def _score(self, result: Result | None) -> dict[str, float | None]:
        """Of a run without a result the entry is empty where its name is known: another task's is not, before."""
        if result is not None:
            return result.judged_by.entries(result.evaluated_on == "holdout")
        return _NO_SCORE.entries(self.cell.recipe.data.holdout > 0) if self.cell.recipe.task == _ITS_TASK else {}


def _origin(trunk: Trunk) -> list[Any]:
    """What a branch hangs on of its trunk: not where that lies; its state only where no study has trained it."""
    inner = None if trunk.trunk is None else _origin(trunk.trunk)
    return [identity(trunk.recipe), trunk.step, trunk.state_sha256, inner]
