"""Findings and runs -> what the template shows: strings and numbers only, nothing left to decide."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from batchscale.records.findings import Findings, Table
from batchscale.records.score import is_of_score
from batchscale.report.draw.scales import number
from batchscale.report.page.runs import Run
from batchscale.report.text import as_words, clean, command_line, flat

_APART = ("time", "command", "recipe", "from_step", "derived", "decided", "fingerprint", "data")
"""Of an environment, never the same for all runs or too long for its list."""
_OUTCOMES = {"status", "train_loss", "steps", "epochs", "images_per_second", "wall_seconds", "folder", "error"}
"""Of a row, what came out, beside its score; the rest was varied."""


@dataclass(frozen=True)
class CellView:
    """One cell of a table: words, and the id of the run that it leads to."""

    words: str
    numeric: bool = False
    link: str = ""


@dataclass(frozen=True)
class TableView:
    """A table as shown."""

    title: str
    caption: str
    columns: Sequence[str]
    numeric: Sequence[bool]
    rows: Sequence[Sequence[CellView]]


@dataclass(frozen=True)
class RunView:
    """A run as shown: what it says when closed, its key results, recipe and environment (whole, or what differs)."""

    ident: str
    name: str
    label: str
    headline: str
    status: str
    results: Mapping[str, str]
    command: str
    recipe_text: str
    recipe_changes: Mapping[str, str]
    environment: Mapping[str, str]
    notes: Sequence[str]


def run_ids(runs: Sequence[Run]) -> dict[str, str]:
    """The id in the page of every run, by its folder."""
    return {run.name: f"run-{place + 1}" for place, run in enumerate(runs)}


def table_view(table: Table) -> TableView:
    """A table as shown."""
    return table_of(clean(table.title), clean(table.caption), [clean(c) for c in table.columns], _cells(table.rows))


def rows_view(findings: Findings, ids: Mapping[str, str]) -> TableView | None:
    """The findings' rows as a table; each leads to its run."""
    if not findings.rows:
        return None
    columns = list(dict.fromkeys(key for row in findings.rows for key in row))
    rows = _cells([[row.get(column) for column in columns] for row in findings.rows])
    if "folder" in columns:
        column = columns.index("folder")
        for row in rows:
            row[column] = CellView(row[column].words, False, ids.get(row[column].words, ""))
    return table_of("Every run", "", [clean(c.replace("_", " ")) for c in columns], rows)


def _cells(rows: Sequence[Sequence[Any]]) -> list[list[CellView]]:
    """Rows as cells; the fractions of one column are written equally long."""
    places = [max((_decimals(value) for value in column), default=0) for column in zip(*rows, strict=True)]
    return [[_cell(value, most) for value, most in zip(row, places, strict=True)] for row in rows]


def _decimals(value: Any) -> int:
    if not isinstance(value, float) or not math.isfinite(value):
        return 0
    plain = f"{value:.6g}"
    return 0 if "e" in plain else len(plain.partition(".")[2])


def _cell(value: Any, places: int) -> CellView:
    if isinstance(value, float):
        if not math.isfinite(value):
            return CellView("")
        return CellView(f"{value:.6g}" if "e" in f"{value:.6g}" else f"{value:.{places}f}", True)
    return CellView(as_words(value), isinstance(value, int) and not isinstance(value, bool))


def run_labels(findings: Findings) -> dict[str, str]:
    """What was varied in every run, in words, by its folder."""
    return {
        as_words(row.get("folder")): "; ".join(
            f"{clean(name.replace('_', ' '))} {as_words(value)}"
            for name, value in row.items()
            if name not in _OUTCOMES and not is_of_score(name) and value is not None
        )
        for row in findings.rows
    }


def run_view(run: Run, ident: str, reference: Run | None, label: str = "") -> RunView:
    """A run as shown, whole, or by what differs from a reference run."""
    environment = machine_of(run)
    entries = run.recipe
    changes: dict[str, str] = {}
    if reference is not None:
        names = dict.fromkeys([*reference.recipe, *entries])
        changes = {
            name: f"{entries.get(name, 'none')} (reference: {reference.recipe.get(name, 'none')})"
            for name in names
            if entries.get(name) != reference.recipe.get(name)
        }
        shared = machine_of(reference)
        environment = {name: words for name, words in environment.items() if shared.get(name) != words}
    when = as_words(run.environment.get("time"))
    notes = [f"data file passed over: {file}: {reason}" for file, reason in run.skipped_files.items()]
    return RunView(
        ident,
        run.name,
        label,
        headline(run),
        run.result.status if run.result else "not finished",
        results_of(run),
        command_line(_words(run.environment.get("command"))),
        run.recipe_text if reference is None else "",
        changes,
        {**({"time": when} if when else {}), **environment},
        notes,
    )


def headline(run: Run) -> str:
    """One run's outcome in a few words."""
    if run.result is None:
        return run.progress
    result = run.result
    if result.status != "done":
        where = "" if result.diverged_at_step is None else f" at step {result.diverged_at_step}"
        return f"{result.status}{where}"
    return "done" if result.judged_by.value is None else f"{result.evaluated_on} {result.judged_by.words}"


def results_of(run: Run) -> dict[str, str]:
    """The key results of an ended run; errors in percent."""
    if run.result is None:
        return {"progress": run.progress}
    shown = run.result.model_dump(exclude={"recipe", "folder", "workers", "per_worker", "processes"})
    return {
        key.replace("_", " "): number(value) if isinstance(value, float) else as_words(value)
        for key, value in shown.items()
        if value is not None
    }


def machine_of(run: Run) -> dict[str, str]:
    """The environment that runs may share, under dotted names."""
    return flat({key: value for key, value in run.environment.items() if key not in _APART})


def environment_of(findings: Findings) -> dict[str, str]:
    """The environment of the findings, under dotted names."""
    return flat({key: value for key, value in findings.environment.items() if key not in ("command", "derived")})


def _words(command: Any) -> list[Any]:
    return command if isinstance(command, list) else []


def table_of(title: str, caption: str, columns: Sequence[str], rows: Sequence[Sequence[CellView]]) -> TableView:
    """A table of cells; a column with a number in it is set right."""
    numeric = [any(row[place].numeric for row in rows) for place in range(len(columns))]
    return TableView(title, caption, columns, numeric, rows)
