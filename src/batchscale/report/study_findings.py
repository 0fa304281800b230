"""A study's folder -> findings: its own; where these are missing or damaged, what was asked and the runs there are."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from batchscale.errors import FolderError
from batchscale.records.files import is_number, parse_json
from batchscale.records.findings import Findings, read_findings
from batchscale.records.score import is_of_score
from batchscale.report.page.runs import Run
from batchscale.report.text import as_words, command_line, flat
from batchscale.words import counted, has

_ENDED = ("done", "diverged")
"""States that the same command does not train again."""


def study_findings(folder: Path, runs: Sequence[Run], skipped: Sequence[tuple[str, str]]) -> Findings:
    """What a study found, or what is there of it; files that cannot be read are named in the warnings.

    Args:
        folder: of the study.
        runs: the ended ones.
        skipped: the others.

    Raises:
        FolderError: study.json is damaged, and there are no findings and no run.
    """
    question, warnings = _question(folder)
    if (folder / "findings.json").exists():
        try:
            findings = read_findings(folder)
        except FolderError as error:
            warnings = [str(error).replace(f"{folder / 'findings.json'}", "findings.json"), *warnings]
        else:
            kind = as_words(question.get("kind"))
            if question and kind != findings.kind:
                warnings.append(f"study.json is of another study: its kind is {kind or 'missing'}, not {findings.kind}")
            return findings.model_copy(update={"warnings": (*findings.warnings, *warnings)})
    rows = _table_rows(folder / "table.csv", runs)
    if warnings and not (runs or skipped or rows):
        raise FolderError(f"{folder}: {'; '.join(warnings)}")
    return _unfinished(question, rows, runs, skipped, warnings)


def _question(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """study.json, and what is wrong with it; findings without runs need none."""
    path = folder / "study.json"
    if not path.exists():
        return {}, ["study.json is missing: what was asked is not recorded"] if (folder / "runs").is_dir() else []
    try:
        question: Any = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        question = None
    if not isinstance(question, dict) or not question:
        return {}, ["study.json: damaged; delete it and run the study again on its folder: ended runs are kept"]
    return question, []


def _unfinished(
    question: dict[str, Any],
    table: list[dict[str, Any]],
    runs: Sequence[Run],
    skipped: Sequence[tuple[str, str]],
    warnings: Sequence[str],
) -> Findings:
    kind, command = as_words(question.get("kind")) or "study", question.get("command")
    recipe = question.get("recipe")
    name = recipe if isinstance(recipe, str) else "its recipe"
    options = flat(question["options"]) if isinstance(question.get("options"), dict) else {}
    words = tuple(as_words(word) for word in command) if isinstance(command, list) else ()
    again = f": {command_line(words)}" if words else ""
    ended = bool(table) and all(row["status"] in _ENDED for row in table)
    lost = "cannot be read" if any("findings.json" in warning for warning in warnings) else "is missing"
    answer = f"No answer yet: {_state(table) if table else _have_ended(len(runs), len(skipped))}."
    advice = f"The study has not finished; the same command goes on with it{again}"
    if ended:
        answer = f"All runs have ended; findings.json {lost}: give the command again, it trains nothing."
        advice = f"findings.json {lost}; the same command writes it{again}"
    return Findings(
        kind=kind,
        title=f"{kind} of {name}: {'all runs have ended' if ended else 'not finished'}",
        recipe=name,
        asked="; ".join(f"{key}: {value}" for key, value in options.items()) or "Its options are not recorded.",
        answer=answer,
        command=words,
        rows=tuple(table or map(_row, runs)),
        warnings=(advice, *warnings),
    )


def _table_rows(path: Path, runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The rows of table.csv, with what runs have ended since it was written; [] where it cannot be read."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = list(csv.reader(file, strict=True))
    except (OSError, ValueError, csv.Error):
        return []
    columns = lines[0] if lines else []
    if not {"folder", "status"} <= set(columns) or any(len(line) != len(columns) for line in lines):
        return []
    known = {run.name: _row(run) for run in runs}
    rows = [dict(zip(columns, map(_value, line), strict=True)) for line in lines[1:]]
    for row in rows:
        if row["status"] == "missing" and (since := known.get(str(row["folder"]))):
            row.update((column, value) for column, value in since.items() if column in row or is_of_score(column))
    return rows


def _value(text: str) -> str | float | None:
    """A cell of a CSV file; a number where it is written as one."""
    for kind in (int, float):
        try:
            value: float = kind(text)
            if str(value) == text and is_number(value):
                return value
        except (ValueError, OverflowError):
            continue
    return text or None


def _state(table: Sequence[dict[str, Any]]) -> str:
    """How many runs ended, failed and are missing; rows of one folder are one run."""
    states = Counter({row["folder"]: row["status"] for row in table}.values())
    ended = sum(states[name] for name in _ENDED)
    words = [f"of {counted(states.total(), 'run')}, {ended} {has(ended)} ended"]
    words += [f"{states['failed']} {has(states['failed'])} failed"] if states["failed"] else []
    waiting = states.total() - ended - states["failed"]
    return ", ".join([*words, f"{waiting} {'is' if waiting == 1 else 'are'} missing"] if waiting else words)


def _have_ended(ended: int, others: int) -> str:
    return f"{counted(ended, 'run')} {has(ended)} ended, {others} {has(others)} not"


def _row(run: Run) -> dict[str, Any]:
    result = run.result
    assert result is not None  # read_runs gives ended runs only
    return {
        "minibatch": result.workers * result.per_worker,
        "seed": run.recipe.get("seed"),
        "status": result.status,
        **result.judged_by.entries(result.evaluated_on == "holdout"),
        "train_loss": result.train_loss,
        "steps": result.steps,
        "folder": run.name,
    }
