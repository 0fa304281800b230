"""Runs as read from disk for a page: recipe, environment, result; what cannot be read is skipped with its reason."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from batchscale.errors import FolderError, RecipeError
from batchscale.recipe.load import parse_yaml
from batchscale.records.files import is_shallow, parse_json, read_lines
from batchscale.records.result import Result, read_result
from batchscale.report.page.text import clean, flat


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
    text = _read(folder / "recipe.yaml", "never begun")
    try:
        recipe = parse_yaml(text, "recipe.yaml")
    except RecipeError:
        recipe = None
    if not isinstance(recipe, dict) or not is_shallow(recipe):
        raise FolderError("recipe.yaml is damaged")
    environment = _mapping(folder / "environment.json")
    earlier = environment.pop("earlier", [])
    ended = (folder / "result.json").exists()
    try:
        result = read_result(folder) if ended else None
    except FolderError as error:
        if isinstance(error.__cause__, OSError):
            raise _cannot_read("result.json", error.__cause__) from error.__cause__
        raise FolderError("result.json is damaged") from None
    return Run(
        name=name,
        recipe_text=clean(text),
        recipe=flat(recipe),
        environment=environment,
        earlier=[one for one in earlier if isinstance(one, dict)] if isinstance(earlier, list) else [],
        result=result,
        progress="ended" if ended else _progress(folder),
        skipped_files=flat(_mapping(folder / "skipped.json")) if (folder / "skipped.json").is_file() else {},
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


def _progress(folder: Path) -> str:
    lines = read_lines(folder / "metrics.jsonl")
    if not lines:
        return "not finished: no step is recorded"
    return f"not finished: at step {lines[-1].get('step', '?')}, epoch {lines[-1].get('epoch', '?')}"


def _mapping(path: Path) -> dict[str, Any]:
    try:
        content = parse_json(_read(path, "never begun"))
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise FolderError(f"{path.name} is damaged")
    return content


def _read(path: Path, without: str) -> str:
    if not path.exists():
        raise FolderError(f"no {path.name}: {without}")
    if not path.is_file():
        raise FolderError(f"{path.name} is no file")
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise _cannot_read(path.name, error) from error
    except UnicodeDecodeError:
        raise FolderError(f"{path.name} cannot be read (not UTF-8)") from None


def _cannot_read(name: str, error: OSError) -> FolderError:
    return FolderError(f"{name} cannot be read ({error.strerror})")
