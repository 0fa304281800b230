"""Where plans are written: nothing that no plan wrote is overwritten, neither an input nor anything else."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from batchscale.errors import FolderError
from batchscale.records.folder import check_free


def check_out_folder(folder: Path | None) -> None:
    """Refuse a folder whose findings a plan would overwrite, or lie beside; None: nothing is written.

    Raises:
        FolderError: it is neither new, nor empty, nor a plan's.
    """
    if folder is not None and not _holds_plan(folder):
        check_free(folder)


def _holds_plan(folder: Path) -> bool:
    """Whether a plan has written it.

    Raises:
        FolderError: its findings are of something else, or cannot be read.
    """
    from batchscale.records.findings import read_findings

    if not (folder / "findings.json").exists():
        return False
    try:
        kind = read_findings(folder).kind
    except FolderError:
        kind = "something else"
    if kind != "plan":
        raise FolderError(
            f"{folder}: its findings.json is of {kind}, not of a plan; give another --out DIR (nothing was changed)"
        )
    return True


def check_out_file(out: Path | None, inputs: Iterable[Path], names: Iterable[str]) -> None:
    """Refuse a file that is an input, or that this command has not written; None: nothing is written.

    Args:
        out: the file.
        inputs: files and folders that are read.
        names: of the entries that the command's own documents have.

    Raises:
        FolderError: it is one.
    """
    if out is None or not out.exists():
        return
    if out.is_dir():
        raise FolderError(f"--out={out}: is a folder; give a file (nothing was changed)")
    if any(path.exists() and path.samefile(out) for path in inputs):
        raise FolderError(f"--out={out}: is the table that is read; give another --out FILE (nothing was changed)")
    if not _has_entries(out, set(names)):
        raise FolderError(
            f"--out={out}: holds something that this command has not written; give another --out FILE (nothing was "
            f"changed)"
        )


def _has_entries(file: Path, names: set[str]) -> bool:
    """Whether it is a document with these entries, or a list of such."""
    try:
        document: Any = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    parts = document if isinstance(document, list) else [document]
    return all(isinstance(part, dict) and set(part) == names for part in parts)
