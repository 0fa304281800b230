"""One run of a study, as a launcher carries it out: the same as ``batchscale train FILE --resume=auto``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from batchscale.recipe import Recipe
from batchscale.records.command import repetition
from batchscale.records.folder import holds_run
from batchscale.run.job import BranchPoint


@dataclass(frozen=True)
class Work:
    """What a launcher needs to know of a run.

    Args:
        recipe_name: for the records.
        recipe: resolved.
        folder: of the run.
        data_folder: of the data sets.
        processes: W.
        branch: where it goes on from, of a branch.
    """

    recipe_name: str
    recipe: Recipe
    folder: Path
    data_folder: Path | None
    processes: int
    branch: BranchPoint | None = None

    @property
    def log(self) -> Path:
        """Where the run's output goes: beside its folder, which must be empty for a new run."""
        return self.folder.with_name(f"{self.folder.name}.log")


class Attempt(Protocol):
    """Work that was started."""

    def ended(self) -> str | None:
        """None while it runs; then its error in one line, "" where there was none."""

    def stop(self) -> None:
        """Ask it to write a checkpoint and end."""

    def kill(self) -> None:
        """End it at once."""


class Launcher(Protocol):
    """A way to carry out work; ``poll_seconds`` apart it is asked whether one ended."""

    poll_seconds: float

    def prepare(self, works: Sequence[Work], jobs: int | None) -> int:
        """Before the first of them: look at what they will need.

        Args:
            works: all, distinct.
            jobs: runs at once; None where nobody has said it.

        Returns:
            Runs at once.

        Raises:
            UsageError: it cannot be had, whatever one waits for.
        """

    def start(self, work: Work) -> Attempt:
        """Begin a run."""


def train_task(work: Work) -> None:
    """Start the run, or go on with it, to its end.

    Raises:
        BatchscaleError: it failed or was stopped.
    """
    from batchscale.run.job import Job
    from batchscale.run.start import start

    command = repetition(work.folder, work.processes, work.data_folder)
    branch = work.branch
    if branch is not None:
        command = (*command, "--branch", str(branch.run), "--at", str(branch.step))
        branch = None if holds_run(work.folder) else branch  # one that has begun needs its trunk no more
    job = Job(work.recipe_name, work.recipe, work.folder, work.data_folder, "auto", command=command, branch=branch)
    start(job, work.processes)
