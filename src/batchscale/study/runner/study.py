"""Many runs into one folder: several at once, never one twice, each stop a pause."""

from __future__ import annotations

import shlex
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from batchscale.errors import BatchscaleError, UsageError
from batchscale.launch.signals import StopSignals
from batchscale.recipe import Recipe
from batchscale.recipe.schema import BranchEntry
from batchscale.records.findings import Findings
from batchscale.study.runner.board import make_board
from batchscale.study.runner.cell import Cell, Outcome
from batchscale.study.runner.crew import Crew
from batchscale.study.runner.folder import StudyFolder
from batchscale.study.runner.slurm import Cluster
from batchscale.study.runner.table import write_table
from batchscale.study.runner.work import Launcher, Work
from batchscale.study.runner.workers import LocalLauncher, warm
from batchscale.words import counted

if TYPE_CHECKING:
    from batchscale.data.contents import Contents
    from batchscale.data.examples import Splits
    from batchscale.recipe.data import Data


class StudyStopped(BatchscaleError):
    """The study was asked to stop, and its runs have, with their checkpoints."""

    def __init__(self, number: int, finished: int, runs: int, command: Sequence[str]) -> None:
        super().__init__(
            f"stopped by {signal.Signals(number).name}: {finished} of {counted(runs, 'run')} finished; "
            f"go on with: {shlex.join(command)}"
        )
        self.exit_code = 128 + number


def _make_launcher(cluster: Cluster | None, out: Path, say: Callable[[str], None]) -> Launcher:
    if cluster is None:
        return LocalLauncher(say)
    from batchscale.study.runner.submitit import SubmititLauncher

    return SubmititLauncher(out / "submitit", cluster, say)


class Study:
    """A study on disk: opens or goes on with its folder, and runs cells there.

    Args:
        out: the study's folder.
        kind: of study, such as "grid".
        recipe_name: for the records.
        recipe: the reference; a folder goes on only with the same one (the seed may differ).
        options: what was asked beside the recipe, for study.json.
        command: words of the command line.
        jobs: runs at once; None: one, or on this machine's GPUs as many as have their own.
        cluster: where the runs are jobs of one, through submitit; None: they run here.
        data_folder: of the data sets.
        say: takes lines of progress, where standard error is no terminal.

    Raises:
        FolderError: the folder holds another study or other files, another study works there, or it cannot be written.
    """

    def __init__(
        self,
        out: Path,
        kind: str,
        recipe_name: str,
        recipe: Recipe,
        options: dict[str, Any],
        command: Sequence[str],
        *,
        jobs: int | None = None,
        cluster: Cluster | None = None,
        data_folder: Path | None = None,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.out, self.kind, self.recipe_name, self.recipe = out, kind, recipe_name, recipe
        self.options, self.command = options, tuple(command)
        self._jobs, self._data_folder, self._say = jobs, data_folder, say
        self._local = cluster is None
        self._launcher = _make_launcher(cluster, out, say)
        self._at_once = 1
        self._ended: dict[str, Outcome] = {}
        self._asked: dict[tuple[str, str], Cell] = {}
        self._validated: set[str] = set()
        self._contents: dict[str, Contents] = {}

    def __enter__(self) -> Self:
        question = {
            "kind": self.kind,
            "recipe": self.recipe_name,
            "options": self.options,
            "command": list(self.command),
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        }
        self._folder = StudyFolder(self.out, question, self.recipe)
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self._folder.close()

    def run(self, cells: Sequence[Cell]) -> list[Outcome]:
        """Run what is not finished yet, and tell of all.

        Args:
            cells: those of one identity share a run.

        Returns:
            One outcome a cell, in the order of the cells.

        Raises:
            UsageError: a recipe that cannot run, or runs on other data, before any run has started.
            StudyStopped: a signal to stop was received; the runs have written their checkpoints.
        """
        with StopSignals() as signals:
            waiting = self._prepare(cells)
        ended = [self._ended[c.key] for c in _distinct(cells) if c.key in self._ended]
        if waiting and signals.received is not None:
            raise self._stopped(signals.received, ended, len(waiting) + len(ended))
        if waiting:
            self._work(waiting, ended)
        return [self._outcome(cell) for cell in cells]

    def _prepare(self, cells: Sequence[Cell]) -> list[Cell]:
        """All that comes before the first run; the cells whose run has not ended."""
        if any(not (self._run_folder(cell) / "result.json").is_file() for cell in cells) and self._local:
            warm()
        waiting = self._waiting(cells)
        self._validate(waiting)
        self._check_data(cells)
        if waiting:
            self._at_once = self._launcher.prepare([self._work_of(cell) for cell in waiting], self._jobs)
        self._asked.update({(cell.key, str(cell.labels)): cell for cell in cells})
        self._folder.begin(unfinished=bool(waiting))
        self._write_table()
        return waiting

    def _stopped(self, number: int, ended: Sequence[Outcome], runs: int) -> StudyStopped:
        finished = sum(outcome.status in ("done", "diverged") for outcome in ended)
        return StudyStopped(number, finished, runs, self.command)

    def finish(self, findings: Findings) -> None:
        """Write findings.json."""
        self._folder.finish(findings)

    def _run_folder(self, cell: Cell) -> Path:
        return self.out / "runs" / cell.key

    def _work_of(self, cell: Cell) -> Work:
        folder = self._run_folder(cell)
        return Work(self.recipe_name, cell.recipe, folder, self._data_folder, cell.processes, cell.branch)

    def _outcome(self, cell: Cell) -> Outcome:
        known = self._ended.get(cell.key)
        if known is None:
            return Outcome(cell, self._run_folder(cell), "missing")
        return Outcome(cell, known.folder, known.status, known.result, known.error)

    def _waiting(self, cells: Sequence[Cell]) -> list[Cell]:
        """The cells whose run has not ended; what is on disk is read, never touched."""
        for cell in _distinct(cells):
            if cell.key not in self._ended and (outcome := self._on_disk(cell)) is not None:
                self._ended[cell.key] = outcome
        return [cell for cell in _distinct(cells) if cell.key not in self._ended]

    def _on_disk(self, cell: Cell) -> Outcome | None:
        """The outcome of a run that is finished, or of a folder that cannot be used; None for one to begin or go on."""
        from batchscale.run.job import Job
        from batchscale.run.opening import finished_result, goes_on

        folder = self._run_folder(cell)
        try:
            if not goes_on(Job(self.recipe_name, cell.recipe, folder, resume="auto"), folder):
                return None
            result = finished_result(folder)
        except (UsageError, OSError) as error:
            reason = str(error).split("; ")[0]
            return Outcome(cell, folder, "failed", error=f"{reason}; delete {folder} and give the same command again")
        return None if result is None else Outcome(cell, folder, result.status, result)

    def _validate(self, cells: Sequence[Cell]) -> None:
        """Everything that can be said of the runs before one starts; a recipe once, whatever its seed."""
        from batchscale.build.build import validate
        from batchscale.run.measuring import check_measures

        loaded: tuple[Data, Splits] | None = None
        for cell in cells:
            seedless = cell.recipe.model_copy(update={"seed": 0, "branch": BranchEntry()})
            like = Cell({"processes": cell.processes}, seedless, cell.processes, cell.trunk).key
            if like not in self._validated:
                check_measures(cell.recipe)
                dataset = loaded[1] if loaded and loaded[0] == cell.recipe.data else None
                loaded = (
                    cell.recipe.data,
                    validate(cell.recipe, self._data_folder, cell.processes, dataset, cell.trunk),
                )
                self._validated.add(like)
                self._contents[cell.recipe.data.model_dump_json()] = loaded[1].contents

    def _check_data(self, cells: Sequence[Cell]) -> None:
        """Raise where a run that is there was begun on other data than this study's."""
        from batchscale.build.inputs import data_at_hand
        from batchscale.run.opening import check_trained_on, trained_on

        for cell in _distinct(cells):
            folder = self._run_folder(cell)
            if contents := trained_on(folder):
                entry = cell.recipe.data.model_dump_json()
                if entry not in self._contents:
                    self._contents[entry] = data_at_hand(cell.recipe, self._data_folder)
                check_trained_on(folder, contents, self._contents[entry])

    def _work(self, waiting: list[Cell], ended: list[Outcome]) -> None:
        works = [(cell, self._work_of(cell)) for cell in waiting]
        crew = Crew(self._launcher, self._at_once, works, ended, self._close)
        board = make_board(self._say)
        try:
            stopped = crew.work(board)
        finally:
            board.close()
            self._write_table()
        if stopped is not None:
            raise self._stopped(stopped, crew.ended, crew.runs)

    def _close(self, cell: Cell, error: str, stopping: bool) -> Outcome | None:
        """What became of an attempt that has ended; None where it was stopped, to go on another time."""
        outcome = self._on_disk(cell)
        if outcome is None:
            if stopping:
                return None
            folder = self._run_folder(cell)
            outcome = Outcome(cell, folder, "failed", error=error or f"{folder}: ended well, but left no result.json")
        self._ended[cell.key] = outcome
        self._write_table()
        return outcome

    def _write_table(self) -> None:
        write_table(self.out / "table.csv", [self._outcome(cell).row() for cell in self._asked.values()])


def _distinct(cells: Sequence[Cell]) -> list[Cell]:
    """The first cell of each identity."""
    first: dict[str, Cell] = {}
    for cell in cells:
        first.setdefault(cell.key, cell)
    return list(first.values())
