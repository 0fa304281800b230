"""A run's folder: the lock, the resolved recipe, the environment, the lines of metrics, evaluations and measures.

OUT/recipe.yaml  environment.json  metrics.jsonl  evaluations.jsonl  measures.jsonl  checkpoints/  weights.safetensors
OUT/result.json
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from pathlib import Path
from typing import IO, Any, Protocol

from batchscale.errors import FolderError
from batchscale.records.files import cannot_write, finite, read_lines, write_json, write_whole
from batchscale.records.lock import LOCK_FILES, RunLock
from batchscale.records.result import read_result
from batchscale.records.run import EVALUATIONS, RunRecords

_BEFORE_A_RUN = (*LOCK_FILES, "branch.json")
"""What may be left of a run that was killed before it began."""


def holds_run(folder: Path) -> bool:
    """Whether a run was begun in this folder."""
    return (folder / "recipe.yaml").is_file()


def attempts(folder: Path) -> int:
    """How often the run in this folder was begun or gone on with; 0 where its environment.json does not tell."""
    return len(RunRecords(folder).attempts())


def check_free(folder: Path) -> None:
    """Raise unless a new run may be written here: a folder that does not exist, or is empty.

    Raises:
        FolderError: the folder holds a run or other files, or is no folder, or cannot be made or written.
    """
    if folder.is_symlink() and not folder.exists():
        raise FolderError(f"{folder}: is a link to nothing; give another --out DIR")
    if folder.exists() and not folder.is_dir():
        raise FolderError(f"{folder}: is a file: --out must be a folder; give another --out DIR")
    if holds_run(folder):
        raise FolderError(
            f"{folder}: already holds a run; go on with it by --resume, or give another --out DIR (nothing was changed)"
        )
    if folder.is_dir() and any(f.name not in _BEFORE_A_RUN and not f.name.endswith(".part") for f in folder.iterdir()):
        raise FolderError(f"{folder}: holds other files: --out must be a new or empty folder; give another --out DIR")
    parent = folder
    while not parent.exists():
        parent = parent.parent
    if not os.access(parent, os.W_OK | os.X_OK):
        raise FolderError(f"{folder}: {parent} is not writable; give another --out DIR")


def check_free_for_benchmark(folder: Path | None) -> None:
    """Refuse a folder in which a document of a benchmark would lie beside something else; None: nothing is written.

    Raises:
        FolderError: it holds a run, or is not empty.
    """
    if folder is None:
        return
    if holds_run(folder):
        raise FolderError(f"{folder}: holds a run, not a benchmark; give another --out DIR (nothing was changed)")
    check_free(folder)


def attempted(folder: Path, entry: str) -> list[dict[str, Any]]:
    """What a run's attempts recorded under this name, the newest first, as far as that can be read."""
    return [one[entry] for one in RunRecords(folder).attempts() if isinstance(one.get(entry), dict)]


def _is_after(step: object, last: int) -> bool:
    return isinstance(step, (int, float)) and step > last


class Sink(Protocol):
    """Something beside the files that takes the lines of a run."""

    def append(self, name: str, line: dict[str, Any]) -> None:
        """One line more of the file of this name."""

    def close(self) -> None:
        """Nothing follows."""


class RunFolder:
    """The folder of one run, opened for writing under its lock.

    Args:
        path: the folder; made where it does not exist.
        wait_seconds: for the lock.

    Raises:
        FolderError: the folder is locked or cannot be written.
    """

    def __init__(self, path: Path, wait_seconds: float = 5.0) -> None:
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(path, error) from error
        self.lock = RunLock(path, wait_seconds)
        self._open: dict[str, IO[bytes]] = {}
        self._sinks: list[Sink] = []

    def withdraw(self) -> None:
        """Take back what was written of a run that could not begin."""
        for name in ("recipe.yaml", "environment.json"):
            with contextlib.suppress(OSError):
                (self.path / name).unlink(missing_ok=True)
        shutil.rmtree(self.path / "tensorboard", ignore_errors=True)

    def abandon(self) -> None:
        """Leave no trace of a run that was never begun."""
        if not holds_run(self.path):
            self.lock.discard()
            with contextlib.suppress(OSError):  # not empty: somebody else's
                self.path.rmdir()
            self.lock.release()

    def write_recipe(self, text: str) -> None:
        """recipe.yaml: the resolved recipe."""
        write_whole(self.path / "recipe.yaml", text.encode())

    def write_environment(self, environment: dict[str, Any]) -> None:
        """environment.json: the newest attempt first, the earlier ones kept below ``earlier``."""
        path = self.path / "environment.json"
        earlier: list[Any] = []
        if path.is_file():
            try:
                last = json.loads(path.read_text(encoding="utf-8"))
                earlier = [{k: v for k, v in last.items() if k != "earlier"}, *last.get("earlier", [])]
            except (ValueError, AttributeError):
                earlier = [{"damaged": True}]
        write_json(path, {**environment, "earlier": earlier})

    def rewind(self, steps: int, evaluation_is_due: bool = False) -> None:
        """Cut metrics, evaluations and every measure's lines back to the first so many steps: a resume goes on there.

        Args:
            steps: of the run so far.
            evaluation_is_due: the evaluation after the last of them is yet to be made.
        """
        for path in self.path.glob("*.jsonl"):
            last = steps - (evaluation_is_due and path.name == EVALUATIONS)
            lines = [line for line in read_lines(path) if not _is_after(line.get("step"), last)]
            write_whole(path, b"".join(json.dumps(line).encode() + b"\n" for line in lines))

    def append(self, name: str, line: dict[str, Any]) -> None:
        """One line more in metrics.jsonl, evaluations.jsonl or a measure's own file, with the step it is of."""
        if not isinstance(line.get("step"), int):
            raise ValueError(f"{name}: a line must have its step, a whole number, or no resume can cut it back")
        path = self.path / name
        try:
            if name not in self._open:
                self._open[name] = open(path, "ab")  # noqa: SIM115 - held until close()
            self._open[name].write(json.dumps(finite(line)).encode() + b"\n")
            self._open[name].flush()
            for sink in self._sinks:
                sink.append(name, line)
        except OSError as error:
            raise cannot_write(path, error) from error

    def add_sink(self, sink: Sink) -> None:
        """Hand every further line to this sink too; it is closed with the folder."""
        self._sinks.append(sink)

    def skipped(self) -> dict[str, str]:
        """Data files that earlier attempts passed over and why, from skipped.json as far as that can be read."""
        try:
            return RunRecords(self.path).skipped()
        except (FolderError, OSError):
            return {}

    def write_skipped(self, files: dict[str, str]) -> None:
        """skipped.json: data files that were passed over, and why."""
        write_json(self.path / "skipped.json", dict(sorted(files.items())))

    def forget_failure(self) -> str | None:
        """Remove the result of an attempt that failed, since the run goes on; returns why it did."""
        try:
            why = read_result(self.path).failure
        except FolderError:
            why = None
        (self.path / "result.json").unlink(missing_ok=True)
        return why

    def write_result(self, result: dict[str, Any]) -> None:
        """result.json."""
        write_json(self.path / "result.json", result)

    def close(self) -> None:
        """Close the files and let the lock go."""
        for file in self._open.values():
            with contextlib.suppress(OSError):  # a full disk has been told of already
                file.close()
        self._open.clear()
        for sink in self._sinks:
            with contextlib.suppress(OSError):
                sink.close()
        self._sinks.clear()
        self.lock.release()
