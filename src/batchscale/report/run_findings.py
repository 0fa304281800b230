"""One run's records -> findings: curves, schedules, speed, where the time went."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from batchscale.records.command import resumption
from batchscale.records.files import is_number
from batchscale.records.findings import Axis, Figure, Findings, Series, Table
from batchscale.records.result import Result
from batchscale.records.run import LINES, RunRecords, speed_entry
from batchscale.records.score import Score
from batchscale.report.draw.scales import number
from batchscale.report.measured_figures import decided_figures, measured_figures
from batchscale.report.page.runs import Run
from batchscale.report.text import as_words
from batchscale.words import counted

_EPOCH = Axis(label="epoch")
_DECADES = 30.0
"""Losses that span more than so many times are drawn on a logarithmic axis."""


def run_findings(folder: Path, run: Run) -> Findings:
    """What a run's folder says of itself.

    Args:
        folder: of the run.
        run: as read from it.
    """
    records = RunRecords(folder)
    metrics, evaluations = records.metrics(), records.evaluations()
    name = run.result.recipe if run.result else _name(run)
    k, n = run.recipe.get("minibatch.workers", "?"), run.recipe.get("minibatch.per_worker", "?")
    noun = _examples(run.result) if run.result else _speed_noun(metrics)
    minibatch = f"{counted(k, 'worker')} of {counted(n, noun.removesuffix('s'))}"
    return Findings(
        kind="run",
        title=f"{name}: {minibatch}",
        recipe=name,
        asked=f"Train {name} for {counted(run.recipe.get('epochs', '?'), 'epoch')} with minibatches of {minibatch}, "
        f"seed {run.recipe.get('seed', '?')}, on {_processes(run)}.",
        answer=_answer(run),
        command=_command(run),
        figures=(
            *(figure for figure in _figures(metrics, evaluations, run) if any(s.x for s in figure.series)),
            *measured_figures(_measures(folder)),
            *decided_figures(_list(((run.result and run.result.model_extra) or {}).get("decisions"))),
        ),
        tables=tuple(table for table in (_phases(metrics), _derived(run), _attempts(run)) if table.rows),
        warnings=_warnings(folder, run),
    )


def _command(run: Run) -> tuple[str, ...]:
    return tuple(as_words(word) for word in _list(run.environment.get("command")))


def _name(run: Run) -> str:
    """Of a run that has no result."""
    return as_words(run.environment.get("recipe")) or run.recipe.get("model.name", "a run")


def _processes(run: Run) -> str:
    return counted(as_words(run.environment.get("processes")) or "?", "process")


def _answer(run: Run) -> str:
    if run.result is None:
        return f"This run has not ended; it is {run.progress}."
    r, epochs = run.result, counted(number(run.result.epochs), "epoch")
    if r.status != "done":
        return f"The run {r.status} after {epochs}: {_why(run.result)}."
    trained = f"{counted(r.steps, 'step', ',')} ({epochs})"
    speed = "" if r.images_per_second is None else f", at {number(round(r.images_per_second))} {_examples(r)}/s"
    score, examples = r.judged_by, _examples(r)
    if score.value is None:
        return f"Trained {trained}{speed}, without an evaluation."
    of_test = r.evaluated_on == "test"
    judged = f"Test {score.words}" if of_test else f"{score.name.capitalize()} on the held-out {examples}"
    value = "" if of_test else score.words.removeprefix(score.name)
    return f"{judged}{value} after {trained}{speed}."


def _examples(result: Result | None) -> str:
    """What its task calls them."""
    return as_words(((result and result.model_extra) or {}).get("examples")) or "images"


def _why(result: Result) -> str:
    """Why a run diverged or failed, in words of the same sentence."""
    if result.status == "failed":
        return as_words(result.failure or "no reason was recorded").rstrip(".")
    where = "" if result.diverged_at_step is None else f" at step {result.diverged_at_step}"
    scales = _list((result.model_extra or {}).get("loss_scales"))
    lowered = ""
    if len(scales) > 1 and all(isinstance(pair, list) and len(pair) == 2 and is_number(pair[1]) for pair in scales):
        highest, last = max(scale for _, scale in scales), scales[-1][1]
        lowered = f"; lowering the fp16 loss scale from {number(highest)} to {number(last)} did not help"
    return f"its loss, or a gradient, was no longer finite{where}{lowered}"


def _warnings(folder: Path, run: Run) -> tuple[str, ...]:
    warnings = []
    command = _command(run)
    way_on = f": {resumption(command, folder)}" if "train" in command else ""
    if run.result is None:
        warnings.append(f"This run is {run.progress}; batchscale train --resume goes on with it{way_on}")
    elif run.result.status == "failed":
        warnings.append(f"This run failed: {_why(run.result)}. batchscale train --resume goes on with it{way_on}")
    elif run.result.status == "diverged":
        warnings.append(f"This run diverged: {_why(run.result)}.")
    warnings.extend(as_words(warning) for warning in _list(run.environment.get("warnings")))
    refusals = {as_words(line["measure"]): line["refused"] for line in _measures(folder) if "refused" in line}
    warnings.extend(f"measure {name} was refused: {as_words(why)}" for name, why in refusals.items())
    if run.skipped_files:
        warnings.append(f"Passed over: {counted(len(run.skipped_files), 'data file')}, listed with the run.")
    return (*warnings, *_damaged(folder))


def _measures(folder: Path) -> list[dict[str, Any]]:
    return [line for line in RunRecords(folder).measures() if "measure" in line]


def _damaged(folder: Path) -> Iterator[str]:
    """A line for every file of lines that is not whole."""
    for name in LINES:
        lines, cut = RunRecords(folder).damaged(name)
        if lines:
            which = ", ".join(map(str, lines[:5])) + (f" and {len(lines) - 5} more" if len(lines) > 5 else "")
            were = f"line {which} was" if len(lines) == 1 else f"lines {which} were"
            yield f"{name} is damaged: {were} left out."
        if cut:
            yield f"{name} ends in mid-line, as a kill or a full disk leaves it: its last line was left out."


def _figures(metrics: Sequence[Mapping[str, Any]], evaluations: Sequence[Mapping[str, Any]], run: Run) -> list[Figure]:
    examples = _speed_noun(metrics)
    noun = _examples(run.result) if run.result else examples
    images = f"held-out {noun}" if run.result and run.result.evaluated_on == "holdout" else f"test {noun}"
    score = run.result.judged_by if run.result else _score_of_lines(metrics, evaluations)
    name, key, unit = score.name, score.key, ", %" if score.unit == "%" else ""
    losses = (_curve("training", metrics, "loss"), _curve(images, evaluations, "loss", points=True))
    errors = (
        _curve("training", metrics, f"train_{key}"),
        _curve(images, evaluations, key, points=True),
    )
    batch, lr = _curve("minibatch", metrics, "minibatch"), _curve("lr", metrics, "lr")
    speed = _curve(f"{examples}/s", metrics, f"{examples}_per_second")
    return [
        _figure("loss", "Loss", "Training: the mean since the line before, as trained on.", "loss", losses, log=True),
        _figure(
            name, name.capitalize(), f"Training: as the loss. Of all {images}: at each evaluation.", name + unit, errors
        ),
        _figure("lr", "Learning rate", "At the last step of each line.", "lr", (lr,)),
        _figure("minibatch", "Minibatch", f"{examples.capitalize()} of one update, kn.", examples, (batch,)),
        _figure("speed", "Speed", "Of training steps alone, since the line before.", f"{examples}/s", (speed,)),
    ]


def _speed_noun(metrics: Sequence[Mapping[str, Any]]) -> str:
    """What the task calls its examples, by the speed in the lines."""
    return next((speed_entry(line) for line in metrics), "images_per_second").removesuffix("_per_second")


def _score_of_lines(metrics: Sequence[Mapping[str, Any]], evaluations: Sequence[Mapping[str, Any]]) -> Score:
    """The score that a run without a result is judged by: the first of its evaluations, or that it trains with."""
    scores = evaluations[0].get("scores") if evaluations else None
    names = list(scores) if isinstance(scores, Mapping) else []
    names += [entry.removeprefix("train_") for line in metrics[:1] for entry in line if entry.startswith("train_")]
    name = names[0].removesuffix("_percent") if names else "error"
    percent = {f"{name}_percent", f"train_{name}_percent"} & {
        entry for line in (*evaluations[:1], *metrics[:1]) for entry in line
    }
    return Score(name=name, value=None, unit="%" if percent or not names else "")


def _figure(ident: str, title: str, caption: str, label: str, series: tuple[Series, ...], log: bool = False) -> Figure:
    values = [y for s in series for y in s.y if y is not None]
    wide = log and values and min(values) > 0 and max(values) > _DECADES * min(values)
    axis = Axis(label=label, scale="log10" if wide else "linear")
    recorded = tuple(s for s in series if s.x)
    return Figure(id=ident, title=title, caption=caption, x=_EPOCH, y=axis, series=recorded)


def _curve(name: str, lines: Iterable[Mapping[str, Any]], key: str, points: bool = False) -> Series:
    recorded = [line for line in lines if is_number(line.get("epoch")) and key in line]
    return Series(
        name=name,
        x=tuple(line["epoch"] for line in recorded),
        y=tuple(line[key] if is_number(line[key]) else None for line in recorded),
        style="line" if points else "curve",
    )


def _phases(metrics: Sequence[Mapping[str, Any]]) -> Table:
    total: dict[str, float] = {}
    previous: Mapping[str, Any] = {}
    other = 0.0
    for line in metrics:
        phases = line.get("phase_seconds")
        seconds_of = {name: s for name, s in phases.items() if is_number(s)} if isinstance(phases, Mapping) else {}
        for name, seconds in seconds_of.items():
            total[name] = total.get(name, 0.0) + seconds
        if seconds_of:
            other += max(_step_seconds(line, previous) - sum(seconds_of.values()), 0.0)
        previous = line
    if round(other, 4):
        total["other"] = other
    whole = sum(total.values()) or 1.0
    rows = tuple((name, round(seconds, 4), round(100 * seconds / whole, 1)) for name, seconds in total.items())
    return Table(
        title="Where the time of training steps went",
        columns=("phase", "seconds", "share, %"),
        rows=rows,
        caption="Of the first process, over all recorded lines. Other: between the phases.",
    )


def _step_seconds(line: Mapping[str, Any], previous: Mapping[str, Any]) -> float:
    """The time of a line's steps, images / (images/s); 0 where that cannot be told, as where the minibatch grew."""
    minibatch, speed = line.get("minibatch"), line.get(speed_entry(line))
    step, last = line.get("step"), previous.get("step", 0)
    steps = line.get("interval_steps", step - last if is_number(step) and is_number(last) else None)
    if not (is_number(steps) and is_number(minibatch) and is_number(speed) and speed > 0):
        return 0.0
    return steps * minibatch / speed if previous.get("minibatch", minibatch) == minibatch else 0.0


def _derived(run: Run) -> Table:
    rows = [
        (as_words(row.get("name")), as_words(row.get("formula")), as_words(row.get("value")))
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
        rows=tuple(tuple(as_words(one.get(column)) for column in columns) for one in attempts),
    )


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
