"""Strong and weak scaling as a document: the answer in words, the figures, the tables."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from batchscale.records.findings import Findings, Table
from batchscale.records.provenance import environment
from batchscale.study.evidence.instrument import words_of
from batchscale.study.evidence.published import UNET, UNET_PER_GPU
from batchscale.study.evidence.quantities import evaluated_on
from batchscale.study.evidence.timing import PHASES
from batchscale.study.runner.cell import Outcome, error_entries
from batchscale.study.scaling.figures import figures
from batchscale.study.scaling.question import (
    STRONG,
    WEAK,
    Passing,
    Question,
    Row,
    cores,
    passing,
    rows_of,
    strong_limit,
    threads_of,
    weak_limit,
)
from batchscale.words import counted, has

_LOOSE = 0.1  # interquartile range over median from which a speed is not to be trusted


def findings_of(question: Question, outcomes: Sequence[Outcome], command: Sequence[str], unet: bool) -> Findings:
    """What came out, as a document.

    Args:
        question: as asked.
        outcomes: of ``cells_of(question)``.
        command: words of the command line.
        unet: draw the published U-Net series beside.
    """
    rows, on = rows_of(outcomes), evaluated_on(outcomes)
    seeds = f"{question.seeds} seeds" if question.seeds > 1 else "one seed"
    kn = question.recipe.minibatch.workers * question.recipe.minibatch.per_worker
    limits = _limits(question, rows)
    return Findings(
        kind="scaling",
        title=f"{' and '.join(question.modes).capitalize()} scaling: {question.recipe_name}",
        recipe=question.recipe_name,
        asked=(
            f"How far do more processes pay on this machine ({counted(cores(), 'core')}, "
            f"{counted(threads_of(question), 'thread')} a process)? "
            f"kn = {kn:,} in strong scaling, W times that in weak; {question.training_images:,} training "
            f"images, {counted(question.recipe.epochs, 'epoch', 'g')}, {seeds}, one run at a time."
            f"{words_of([outcome.cell for outcome in outcomes])}"
        ),
        answer=" ".join(_sentences(question, rows, limits, on)),
        command=tuple(command),
        rows=tuple(outcome.row() for outcome in outcomes),
        figures=figures(question, rows, unet, on),
        tables=(
            *(table for mode in question.modes for table in _tables(question, mode, rows, on)),
            *((_unet_table(question),) if unet else ()),
        ),
        warnings=tuple(_warnings(question, rows)),
        result={"scaling": _as_json(question, rows, limits, on)},
        environment=environment(),
    )


def _limits(question: Question, rows: Sequence[Row]) -> dict[str, Passing]:
    found = {}
    if STRONG in question.modes:
        found[STRONG] = strong_limit(rows, question.efficiency_bound)
    if WEAK in question.modes:
        found[WEAK] = weak_limit(rows, question.error_bound)
    return found


def _sentences(question: Question, rows: Sequence[Row], limits: dict[str, Passing], on: str) -> Iterator[str]:
    """The rules of thumb."""
    most = question.processes[-1]
    if loose := _loose(rows):
        low, high = min(row.spread for row in loose), max(row.spread for row in loose)
        spread = f"{low:.0%}" if len(loose) == 1 else f"{low:.0%} to {high:.0%}"
        yield (
            f"Not measurable now (spread {spread.replace('%', ' %')}): speeds and efficiencies are hints at best, to "
            f"be timed again on a quiet machine."
        )
    if STRONG in limits:
        found, bound = limits[STRONG], f"{question.efficiency_bound:g}"
        if found.processes is None:
            last = f"W = {found.within}" if found.within else "any W measured"
            end = ", the largest tried" if found.within == most else ""
            yield f"Strong scaling's efficiency stays at {bound} or more up to {last}{end}."
        else:
            yield f"Strong scaling's efficiency falls below {bound} {_between(found, rows, STRONG)}."
    if WEAK in limits:
        found = limits[WEAK]
        first = next(row for row in rows if row.mode == WEAK)
        if math.isinf(first.errors.mean):
            yield f"Weak scaling's error has nothing to be compared with: W = {first.processes} diverged or has none."
        elif found.processes is None:
            end = ", the largest tried" if found.within == most else ""
            yield (
                f"Weak scaling's mean {on} error stays within {counted(question.error_bound, 'point', 'g')} of W = "
                f"{first.processes}'s {first.errors.mean:.2f} % up to W = {found.within} "
                f"(kn = {_kn(rows, found.within):,}){end}."
            )
        else:
            yield (
                f"Weak scaling's mean {on} error rises to more than {counted(question.error_bound, 'point', 'g')} "
                f"above W = {first.processes}'s {first.errors.mean:.2f} % {_between(found, rows, WEAK)}."
            )


def _kn(rows: Sequence[Row], processes: int | None) -> int:
    return next((row.minibatch for row in rows if row.mode == WEAK and row.processes == processes), 0)


def _loose(rows: Sequence[Row]) -> list[Row]:
    """Those whose speed is not to be trusted."""
    return [row for row in rows if row.spread > _LOOSE]


def _between(found: Passing, rows: Sequence[Row], mode: str) -> str:
    measured = [row.processes for row in rows if row.mode == mode]
    if found.within is None:
        return f"at the smallest measured already, W = {measured[0]}"
    after = next(w for w in measured if w > found.within)
    about = f"{found.processes:.1f}"
    known = "" if about == f"{found.within:.1f}" else f" (about {about})"
    return f"between {found.within} and {after} processes{known}"


def _as_json(question: Question, rows: Sequence[Row], limits: dict[str, Passing], on: str) -> dict[str, Any]:
    return {
        "evaluated_on": on,
        "efficiency_bound": question.efficiency_bound,
        "error_bound_points": question.error_bound,
        "threads_per_process": threads_of(question),
        "limits": {mode: asdict(found) for mode, found in limits.items()},
        "measured": [
            {
                "mode": row.mode,
                "processes": row.processes,
                "minibatch": row.minibatch,
                "images_per_process": row.per_process,
                "images_per_second": row.images_per_second,
                "speed_up": row.speed_up,
                "efficiency": row.efficiency,
                "spread": row.spread,
                "phase_milliseconds": row.phases,
                **error_entries(None if math.isinf(row.errors.mean) else row.errors.mean, on == "holdout"),
                "train_loss": None if math.isinf(row.losses.mean) else row.losses.mean,
                "oversubscribed": oversubscribed(question, row),
            }
            for row in rows
        ],
    }


def oversubscribed(question: Question, row: Row) -> bool:
    """Whether the row's processes had more threads than the machine has cores."""
    return row.processes * threads_of(question) > cores()


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None or math.isinf(value) else round(value, digits)


def _tables(question: Question, mode: str, rows: Sequence[Row], on: str) -> tuple[Table, Table]:
    """Speed and error of a mode, and where its time goes."""
    of = [row for row in rows if row.mode == mode]
    speed = Table(
        title=f"{mode.capitalize()} scaling",
        columns=(
            "processes", "images a process", "minibatch kn", "images/s", "speed-up", "efficiency",
            "short of ideal (%)", "training loss", f"{on} error (%)", "deviation", "more threads than cores",
        ),
        rows=tuple(
            (
                row.processes, _rounded(row.per_process, 2), row.minibatch, _rounded(row.images_per_second, 1),
                _rounded(row.speed_up, 3), _rounded(row.efficiency, 3),
                None if row.efficiency is None else round(100 * (1 - row.efficiency), 1),
                _rounded(row.losses.mean, 4), _rounded(row.errors.mean, 3), _rounded(row.errors.deviation(), 3),
                "yes" if oversubscribed(question, row) else "no",
            )
            for row in of
        ),
        caption="images/s: median over seeds of each run's median interval of training steps, the first left out; "
        "speed-up: median over seeds of the ratio within a seed, to its run at the smallest W, so it need not follow "
        "images/s. "
        f"Loss of the last epoch and final {on} error: means over seeds.",
    )  # fmt: skip
    phases = Table(
        title=f"{mode.capitalize()} scaling: milliseconds of a step",
        columns=("processes", "data", "forward", "backward", "waiting for aggregation", "update"),
        rows=tuple((row.processes, *(_rounded(row.phases.get(phase), 3) for phase in PHASES)) for row in of),
        caption="Of rank 0, median intervals, median over seeds. The part of the aggregation that overlaps with "
        "backward is in backward." + (_GPU if any("CUDA" in d for row in of for d in row.devices) else ""),
    )
    return speed, phases


_GPU = " On a GPU: as the host saw it; work that it had not waited for shows in the phase that did (update)."


def _unet_table(question: Question) -> Table:
    rows = []
    for framework, of in UNET.items():
        base = of[0]
        speeds = [(m.gpus, m.images_per_second / base.images_per_second / m.gpus) for m in of]
        errors = [(m.gpus, m.error_percent - base.error_percent) for m in of]
        speed = passing(speeds, question.efficiency_bound, falls=True)
        error = passing(errors, question.error_bound, falls=False)
        rows.append(
            (
                framework, of[-1].gpus, round(speeds[-1][1], 3), _rounded(speed.processes, 1),
                round(errors[-1][1], 1), _rounded(error.processes, 1),
            )
        )  # fmt: skip
    return Table(
        title="Published: weak scaling of a U-Net, read by the same code",
        columns=(
            "framework", "most GPUs", "efficiency there",
            f"efficiency below {question.efficiency_bound:g} at W =", "error added there (points)",
            f"more than {counted(question.error_bound, 'point', 'g')} above W = 1 at W =",
        ),
        rows=tuple(rows),
        caption=f"V100 GPUs, {UNET_PER_GPU} images each, Adam with lr 1e-3 x GPUs, no warmup, one run a point; error = "
        f"100 (1 - IoU). Empty: never within the GPUs tried. The error is not monotone, one run a point.",
    )  # fmt: skip


def _warnings(question: Question, rows: Sequence[Row]) -> Iterator[str]:
    over = sorted({row.processes for row in rows if oversubscribed(question, row)})
    if over and not any("CUDA" in device for row in rows for device in row.devices):
        yield (
            f"W = {', '.join(map(str, over))}: more threads than this machine's {counted(cores(), 'core')}, so the "
            f"processes shared cores: speed there says nothing about a larger machine"
        )
    if loose := _loose(rows):
        each = ", ".join(f"{row.mode} W = {row.processes} {row.spread:.0%}" for row in loose)
        yield (
            f"the intervals of a run differ in speed by more than {_LOOSE:.0%} (interquartile range over median: "
            f"{each}): other work on the machine, or runs too short to time; not measurable now"
        )
    if len(devices := sorted({device for row in rows for device in row.devices})) > 1:
        yield f"the runs were computed on different devices ({'; '.join(devices)}): their speeds do not compare"
    for row in rows:
        where = f"{row.mode}, W = {row.processes}"
        if diverged := sum(map(math.isinf, row.errors.errors)):
            yield f"{where}: {diverged} of {counted(question.seeds, 'run')} diverged: no mean error is given"
        if missing := question.seeds - len(row.errors.errors):
            yield f"{where}: {missing} of {counted(question.seeds, 'run')} {has(missing)} no result"
        if row.images_per_second is None:
            yield f"{where}: no interval was long enough to time; train longer"
    if question.seeds == 1:
        yield "one seed: the spread of speed and error is not known"
    if question.processes[0] > 1:
        yield f"the smallest W is {question.processes[0]}: speed-up and efficiency are against it, not against W = 1"
