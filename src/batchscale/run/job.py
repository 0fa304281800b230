"""What to train and where, as a command, a study or a call from Python says it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from batchscale.recipe import Recipe
from batchscale.records.command import resumption
from batchscale.system.launcher import names_launcher

Resume = Literal["no", "yes", "auto"]


@dataclass(frozen=True)
class BranchPoint:
    """Where a branch begins: the folder of its trunk, and the step of the checkpoint; None for the newest."""

    run: Path
    step: int | None = None


@dataclass(frozen=True)
class Job:
    """What to train and where.

    Args:
        name: of the recipe, for the records.
        recipe: resolved.
        out: the run's folder; None to write nothing.
        data_folder: of the data sets.
        resume: "no": a new run; "yes": go on with one; "auto": either.
        quiet: no progress.
        command: words that began it, for the records; () where that was no command line of batchscale.
        debug: processes that are started print the traceback of an error.
        branch: the checkpoint of another run that a new run goes on from.
    """

    name: str
    recipe: Recipe
    out: Path | None
    data_folder: Path | None = None
    resume: Resume = "no"
    quiet: bool = False
    command: tuple[str, ...] = ()
    debug: bool = False
    branch: BranchPoint | None = None

    @property
    def way_on(self) -> str:
        """How to go on with it where it stops."""
        if self.out is None:
            return "no folder was given, so nothing was kept"
        if not self.command:
            return 'go on with the same call and resume="yes"'
        way = "go on with" if names_launcher(self.command) else "start it again by the same launcher with"
        return f"{way}: {resumption(self.command, self.out)}"
