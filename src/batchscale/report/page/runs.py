"""Runs as read from disk for a page: recipe, environment, result; what cannot be read is skipped with its reason."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from batchscale.errors import FolderError
from batchscale.records import Result, RunRecords
from batchscale.report.text import clean, flat


@dataclass(frozen=True)
class Run:
    """One run's folder.

    Args:
        name: the folder, relative to the page's.
        recipe_text: recipe.yaml as it stands.
        recipe: its entries under dotted names.
        environment: of the newest attempt.
        earlier: environments of the attempts before it, the newest first.
        result: None where the run has not ended.
        progress: where a run that has not ended stands, in words.
        skipped_files: data files that were passed over, and why.
    """

    name: str
    recipe_text: str
    recipe: Mapping[str, str]
    environment: Mapping[str, Any]
    earlier: Sequence[Mapping[str, Any]]
    result: Result | None
    progress: str
    skipped_files: Mapping[str, str] = field(default_factory=dict)


def read_run(folder: Path, name: str) -> Run:
    """A run's folder, ended or not.

    Raises:
        FolderError: a part of it is missing or damaged; the message is the reason alone.
    """
    records = RunRecords(folder)
    recipe, environment = records.recipe(), records.environment()
    return Run(
        name=name,
        recipe_text=clean(records.recipe_text()),
        recipe=flat(recipe),
        environment=environment,
        earlier=records.attempts()[1:],
        result=records.result(),
        progress="ended" if records.has_ended() else _progress(records),
        skipped_files=flat(records.skipped()),
    )


def read_runs(study: Path) -> tuple[list[Run], list[tuple[str, str]]]:
    """The ended runs below a study's folder in order of their names, and (folder, reason) of those skipped."""
    runs, skipped = [], []
    below = study / "runs"
    for folder in sorted(below.iterdir(), key=_natural) if below.is_dir() else []:
        if not folder.is_dir():
            continue
        name = f"runs/{clean(folder.name)}"
        try:
            run = read_run(folder, name)
        except FolderError as error:
            skipped.append((name, str(error)))
            continue
        if run.result is None:
            skipped.append((name, run.progress))
        else:
            runs.append(run)
    return runs, skipped


def _natural(folder: Path) -> list[tuple[int, str]]:
    """kn64 stands before kn512."""
    parts = re.split("([0-9]+)", folder.name)  # isdigit alone holds for a superscript, too, which is no number
    return [(int(part), "") if part.isascii() and part.isdecimal() else (-1, part) for part in parts]


def _progress(records: RunRecords) -> str:
    line = records.newest_metrics()
    if line is None:
        return "not finished: no step is recorded"
    return f"not finished: at step {line.get('step', '?')}, epoch {line.get('epoch', '?')}"
