"""One run's records -> findings: curves, schedules, speed, where the time went."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from batchscale.records.files import read_lines
from batchscale.records.findings import Axis, Figure, Findings, Series, Table
from batchscale.report.page.runs import Run
from batchscale.report.page.scales import number
from batchscale.report.page.text import said

_EPOCH = Axis(label="epoch")
_DECADES = 30.0
"""Losses that span more than so many times are drawn on a logarithmic axis."""


def run_findings(folder: Path, run: Run) -> Findings:
    """What a run's folder says of itself.

    Args:
        folder: of the run.
        run: as read from it.
    """
    metrics, evaluations = read_lines(folder / "metrics.jsonl"), read_lines(folder / "evaluations.jsonl")
    name = run.result.recipe if run.result else _name(run)
    k, n = run.recipe.get("minibatch.workers", "?"), run.recipe.get("minibatch.per_worker", "?")
    return Findings(
        kind="run",
        title=f"{name}: {k} workers of {n} images",
        recipe=name,
        asked=f"Train {name} for {run.recipe.get('epochs', '?')} epochs with minibatches of {k} workers x {n} images, "
        f"seed {run.recipe.get('seed', '?')}, on {_processes(run)}.",
        answer=_answer(run),
        command=tuple(said(word) for word in _list(run.environment.get("command"))),
        figures=tuple(figure for figure in _figures(metrics, evaluations, run) if any(s.x for s in figure.series)),
        tables=tuple(table for table in (_phases(metrics), _derived(run), _attempts(run)) if table.rows),
        warnings=_warnings(run),
    )


def _name(run: Run) -> str:
    """Of a run that has no result: the recipe on its command line."""
    words = [said(word) for word in _list(run.environment.get("command"))]
    return words[2] if len(words) > 2 and words[1] == "train" else run.recipe.get("model.name", "a run")


def _processes(run: Run) -> str:
    count = said(run.environment.get("processes")) or "?"
    return f"{count} process" if count == "1" else f"{count} processes"


def _answer(run: Run) -> str:
    if run.result is None:
        return f"This run has not ended; it is {run.progress}."
    r = run.result
    if r.status != "done":
        at = "" if r.diverged_at_step is None else f" at step {r.diverged_at_step}: its loss was no longer finite"
        return f"The run {r.status}{at}, after {number(r.epochs)} epochs."
    speed = "" if r.images_per_second is None else f", at {number(round(r.images_per_second))} images/s"
    if r.test_error_percent is None:
        return f"Trained {r.steps:,} steps ({number(r.epochs)} epochs){speed}, without an evaluation."
    on = "Test error" if r.evaluated_on == "test" else "Error on the held-out images"
    return f"{on} {r.test_error_percent:.2f} % after {r.steps:,} steps ({number(r.epochs)} epochs){speed}."


def _warnings(run: Run) -> tuple[str, ...]:
    found = []
    if run.result is None:
        found.append(f"This run is {run.progress}; batchscale train --resume goes on with it.")
    if run.skipped_files:
        found.append(f"{len(run.skipped_files)} data files were passed over; they are listed with the run.")
    return tuple(found)


def _figures(metrics: Sequence[Mapping[str, Any]], evaluations: Sequence[Mapping[str, Any]], run: Run) -> list[Figure]:
    on = "held-out images" if run.result and run.result.evaluated_on == "holdout" else "test images"
    losses = (_curve("training", metrics, "loss"), _curve(on, evaluations, "loss", points=True))
    error = _curve("error", evaluations, "error_percent", points=True)
    batch, lr = _curve("minibatch", metrics, "minibatch"), _curve("lr", metrics, "lr")
    speed = _curve("images/s", metrics, "images_per_second")
    return [
        _figure("loss", "Loss", "Training: the mean since the line before, as trained on.", "loss", losses, log=True),
        _figure("error", "Error", f"Of all {on}, at each evaluation.", "error, %", (error,)),
        _figure("lr", "Learning rate", "At the last step of each line.", "lr", (lr,)),
        _figure("minibatch", "Minibatch", "Images of one update, kn.", "images", (batch,)),
        _figure("speed", "Speed", "Of training steps alone, since the line before.", "images/s", (speed,)),
    ]


def _figure(ident: str, title: str, caption: str, label: str, series: tuple[Series, ...], log: bool = False) -> Figure:
    values = [y for s in series for y in s.y if y is not None]
    wide = log and values and min(values) > 0 and max(values) > _DECADES * min(values)
    axis = Axis(label=label, scale="log10" if wide else "linear")
    there = tuple(s for s in series if s.x)
    return Figure(id=ident, title=title, caption=caption, x=_EPOCH, y=axis, series=there)


def _curve(name: str, lines: Iterable[Mapping[str, Any]], key: str, points: bool = False) -> Series:
    there = [line for line in lines if _is_number(line.get("epoch")) and key in line]
    return Series(
        name=name,
        x=tuple(line["epoch"] for line in there),
        y=tuple(line[key] if _is_number(line[key]) else None for line in there),
        style="line" if points else "curve",
    )


def _phases(metrics: Sequence[Mapping[str, Any]]) -> Table:
    total: dict[str, float] = {}
    for line in metrics:
        phases = line.get("phase_seconds")
        for phase, seconds in phases.items() if isinstance(phases, Mapping) else ():
            total[phase] = total.get(phase, 0.0) + (seconds if _is_number(seconds) else 0.0)
    whole = sum(total.values()) or 1.0
    rows = tuple((name, round(seconds, 4), round(100 * seconds / whole, 1)) for name, seconds in total.items())
    return Table(
        title="Where the time of training steps went",
        columns=("phase", "seconds", "share, %"),
        rows=rows,
        caption="Of the first process, over all recorded lines.",
    )


def _derived(run: Run) -> Table:
    rows = [
        (said(row.get("name")), said(row.get("formula")), said(row.get("value")))
        for row in _list(run.environment.get("derived"))
        if isinstance(row, dict)
    ]
    return Table(title="Derived numbers", columns=("name", "formula", "value"), rows=tuple(rows))


def _attempts(run: Run) -> Table:
    columns = ("time", "from_step", "processes", "host", "git_commit")
    attempts = [run.environment, *run.earlier] if run.earlier else []
    return Table(
        title="Attempts, the newest first",
        columns=tuple(column.replace("_", " ") for column in columns),
        rows=tuple(tuple(said(one.get(column)) for column in columns) for one in attempts),
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
