"""One run of a study, as a launcher carries it out: the same as ``batchscale train FILE --resume=auto``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from batchscale.recipe import Recipe
from batchscale.records.command import repetition


@dataclass(frozen=True)
class Task:
    """What a launcher needs to know of a run.

    Args:
        recipe_name: for the records.
        recipe: resolved.
        folder: of the run.
        data_folder: of the data sets.
        processes: W.
    """

    recipe_name: str
    recipe: Recipe
    folder: Path
    data_folder: Path | None
    processes: int

    @property
    def log(self) -> Path:
        """Where the run's output goes: beside its folder, which must be empty for a new run."""
        return self.folder.with_name(f"{self.folder.name}.log")


class Attempt(Protocol):
    """A task that was started."""

    def ended(self) -> str | None:
        """None while it runs; then its error in one line, "" where there was none."""

    def stop(self) -> None:
        """Ask it to write a checkpoint and end."""

    def kill(self) -> None:
        """End it at once."""


class Launcher(Protocol):
    """A way to carry out tasks; ``poll_seconds`` apart it is asked whether one ended."""

    poll_seconds: float

    def start(self, task: Task) -> Attempt:
        """Begin a task."""


def train_task(task: Task) -> None:
    """Start the run, or go on with it, to its end.

    Raises:
        BatchscaleError: it failed or was stopped.
    """
    from batchscale.run.job import Job
    from batchscale.run.start import start

    command = repetition(task.folder, task.processes, task.data_folder)
    start(Job(task.recipe_name, task.recipe, task.folder, task.data_folder, "auto", command=command), task.processes)
