"""A study's folder: what was asked, the lock, the runs.

OUT/study.json  table.csv  findings.json  report.html  runs/KEY/  runs/KEY.log

While runs are still to do, an earlier question's findings.json lies aside as findings.before.json.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from batchscale.errors import BatchscaleError, FolderError
from batchscale.recipe import Recipe, identity
from batchscale.recipe.explain import UnknownMember
from batchscale.recipe.load import recipe_from
from batchscale.records import RunLock
from batchscale.records.files import cannot_write, write_json
from batchscale.records.findings import Findings
from batchscale.records.folder import check_free, holds_run
from batchscale.records.lock import LOCK_FILES
from batchscale.system.disk import replace

_OURS = {
    *LOCK_FILES, "study.json", "table.csv", "findings.json", "findings.before.json", "report.html", "runs", "submitit",
    "demo.png", "demo.svg",
}  # fmt: skip


class StudyFolder:
    """The folder of one study, opened for writing under its lock.

    Args:
        path: made where it does not exist.
        question: for study.json: kind, recipe, options, command, started.
        recipe: the reference; all that is trained but for the seed must agree with study.json's.

    Raises:
        FolderError: the folder holds another study or other files, is locked, or cannot be written.
    """

    def __init__(self, path: Path, question: dict[str, Any], recipe: Recipe) -> None:
        self.path, self._question, self._recipe = path, question, recipe
        check_study(path, question["kind"], recipe)
        self._made = not path.exists()
        self._begun = False
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(path, error) from error
        self._lock = RunLock(path, writer="study")
        try:
            check_study(path, question["kind"], recipe)  # what was there before the lock may have changed
        except BaseException:
            self._lock.release()
            raise

    def begin(self, unfinished: bool) -> None:
        """Record the question; once, when nothing speaks against running it.

        Args:
            unfinished: runs are to do, so an earlier answer is not this question's.
        """
        try:
            if not self._begun:
                reference = {"reference": self._recipe.model_dump(mode="json")}
                write_json(_document(self.path), {**self._question, **reference, **self._history()})
                self._begun = True
            self.runs.mkdir(exist_ok=True)
            if unfinished and (self.path / "findings.json").exists():
                replace(self.path / "findings.json", self.path / "findings.before.json")
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def finish(self, findings: Findings) -> None:
        """Write findings.json."""
        findings.write(self.path)
        (self.path / "findings.before.json").unlink(missing_ok=True)

    def _history(self) -> dict[str, Any]:
        """Questions asked of this folder before, the oldest first."""
        if not _document(self.path).exists():
            return {}
        last = json.loads(_document(self.path).read_text(encoding="utf-8"))
        earlier = last.get("earlier", [])
        # The words of a command are its question: its options were written in other forms by earlier versions.
        if last.get("command") != list(self._question["command"]):
            earlier = [*earlier, {name: last.get(name) for name in ("started", "options", "command")}]
        return {"earlier": earlier} if earlier else {}

    @property
    def runs(self) -> Path:
        """The folder of the runs' folders."""
        return self.path / "runs"

    def close(self) -> None:
        """Let the folder go; one made here for a study that never began leaves no trace."""
        if not self._begun and not _document(self.path).exists():
            self._lock.discard()
            if self._made:
                with contextlib.suppress(OSError):  # not empty: somebody else's
                    self.path.rmdir()
        self._lock.release()


def check_study(path: Path, kind: str, recipe: Recipe | None) -> None:
    """Raise where a study may not be written; nothing is changed.

    Args:
        path: of the study.
        kind: of study.
        recipe: the reference; None while it is not known whole: only the kind is compared.

    Raises:
        FolderError: the folder holds another study or other files, or cannot be written.
    """
    if holds_run(path):
        raise FolderError(f"{path}: holds a run, not a study; give another --out DIR (nothing was changed)")
    if not _document(path).exists():
        if not path.is_dir() or any(f.name not in _OURS for f in path.iterdir()):
            check_free(path)
        return
    begun_kind, begun_with = _read(path)
    if begun_kind != kind:
        raise FolderError(
            f"{path}: holds a study of kind {begun_kind}, not {kind}; give another --out DIR (nothing was changed)"
        )
    begun = _reference(path, begun_with)
    begun_entries, entries = _trained(begun), _trained(recipe or begun)
    for name in sorted(begun_entries.keys() | entries.keys()):
        if begun_entries.get(name) != entries.get(name):
            raise FolderError(
                f"{path}: holds a study of another recipe: {name} is {begun_entries.get(name)} there, "
                f"{entries.get(name)} here; give the same recipe, or another --out DIR (nothing was changed)"
            )


def _document(path: Path) -> Path:
    return path / "study.json"


def _read(path: Path) -> tuple[str, Any]:
    """(kind, the entries of the reference) of the study that is there."""
    try:
        content = json.loads(_document(path).read_text(encoding="utf-8"))
        return str(content["kind"]), content["reference"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(path, error) from None


def _reference(path: Path, entries: Any) -> Recipe:
    """The reference of the study that is there; one that names a member of a plugin is whole without it."""
    try:
        return recipe_from(entries)
    except UnknownMember as error:
        raise FolderError(
            f"{path}: holds a study of names that are not known here: {error.sentence}, or give another --out DIR "
            f"(nothing was changed)"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError, BatchscaleError) as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> FolderError:
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return FolderError(
        f"{_document(path)}: damaged ({reason}); delete it and give the same command again: finished runs are kept"
    )


def _trained(recipe: Recipe) -> dict[str, Any]:
    """What all runs of a study share: the identity but for the seed, whether sums are exact, or sent in 16 bits."""
    entries = {name: value for name, value in identity(recipe).items() if name != "seed"}
    wire = {} if recipe.numerics.wire == "fp32" else {"numerics.wire": recipe.numerics.wire}
    return {**entries, "numerics.exact": recipe.numerics.exact, **wire}
