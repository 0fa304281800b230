"""Figures of strong and weak scaling; their tables."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from batchscale.records.findings import Axis, Figure, Mark, Series, Table
from batchscale.study.evidence.published import UNET
from batchscale.study.evidence.timing import PHASES
from batchscale.study.question import Case
from batchscale.study.runner.cell import Outcome
from batchscale.study.scaling.answer import Answer, Row
from batchscale.study.scaling.question import STRONG, WEAK, Question
from batchscale.study.scaling.tables import all_tables

_PROCESSES = Axis(label="processes W", scale="log2")
_WORDS = {"aggregation": "waiting for aggregation"}
_MOST_GPUS = 14  # of the published series


def figures(case: Case[Question], answer: Answer, outcomes: Sequence[Outcome]) -> Iterator[Figure]:
    """Speed-up, efficiency, phases of each mode, error in weak scaling, the published error."""
    yield _speed_up(case.question, answer)
    yield _efficiency(case.question, answer)
    for mode in case.question.modes:
        yield _phases(mode, answer.of_mode(mode))
    if WEAK in case.question.modes:
        yield _weak_score(case.question, answer)
    if case.question.with_unet:
        yield _unet_error()


def tables(case: Case[Question], answer: Answer) -> Iterator[Table]:
    """Of every mode, and of the published series."""
    return all_tables(case, answer)


def _speed_up(question: Question, answer: Answer) -> Figure:
    first = question.processes[0]
    most = max(question.processes[-1], _MOST_GPUS if question.with_unet else 0)
    series = [Series(name="ideal", x=(first, most), y=(1.0, most / first), style="dashed")]
    for mode in question.modes:
        rows = answer.of_mode(mode)
        several = all(len(row.speed_ups) > 1 for row in rows)
        series.append(
            Series(
                name=mode,
                x=tuple(row.processes for row in rows),
                y=tuple(row.speed_up for row in rows),
                low=tuple(min(row.speed_ups.values()) for row in rows) if several else (),
                high=tuple(max(row.speed_ups.values()) for row in rows) if several else (),
                runs=tuple(row.folder for row in rows),
            )
        )
    return Figure(
        id="speed-up",
        title="Speed-up against processes",
        caption=f"images/s against that of the same seed at W = {first}, median over seeds; whiskers: lowest and "
        "highest.",
        x=_PROCESSES,
        y=Axis(label="speed-up", scale="log2"),
        series=(*series, *(_published(question, efficiency=False))),
    )


def _published(question: Question, efficiency: bool) -> Iterator[Series]:
    """The published series, as speed-up or as efficiency."""
    for framework, points in UNET.items() if question.with_unet else ():
        speeds = [point.images_per_second / points[0].images_per_second for point in points]
        gpus = [point.gpus for point in points]
        shares = [speed / count for speed, count in zip(speeds, gpus, strict=True)]
        y = tuple(shares if efficiency else speeds)
        yield Series(name=f"U-Net, {framework} (published)", x=tuple(gpus), y=y, style="points")


def _efficiency(question: Question, answer: Answer) -> Figure:
    series = [
        Series(
            name=mode,
            x=tuple(row.processes for row in answer.of_mode(mode)),
            y=tuple(row.efficiency for row in answer.of_mode(mode)),
            runs=tuple(row.folder for row in answer.of_mode(mode)),
        )
        for mode in question.modes
    ]
    marks = (Mark(label=f"bound {question.efficiency_bound:g}", y=question.efficiency_bound),)
    return Figure(
        id="efficiency",
        title="Efficiency against processes",
        caption="Speed-up over the ideal one.",
        x=_PROCESSES,
        y=Axis(label="efficiency"),
        series=(*series, *_published(question, efficiency=True)),
        marks=marks if STRONG in question.modes else (),
    )


def _phases(mode: str, rows: Sequence[Row]) -> Figure:
    timed = [row for row in rows if row.phases]
    return Figure(
        id=f"phases-{mode}",
        title=f"Where a step's time goes: {mode} scaling",
        caption="Milliseconds of a step on rank 0, median interval, median over seeds. The part of the aggregation "
        "that overlaps with backward is in backward.",
        x=_PROCESSES,
        y=Axis(label="milliseconds a step"),
        series=tuple(
            Series(
                name=_WORDS.get(phase, phase),
                x=tuple(row.processes for row in timed),
                y=tuple(row.phases[phase] for row in timed),
            )
            for phase in PHASES
        ),
    )


def _weak_score(question: Question, answer: Answer) -> Figure:
    rows, judged = answer.of_mode(WEAK), answer.judged
    bands = [row.scores.band() for row in rows]
    bound = answer.error_bound(question.error_bound)
    bar = judged.allowed(rows[0].scores.mean, bound)
    sign = "+" if judged.falls else "-"
    mark = Mark(label=f"W = {rows[0].processes} {sign} {bound:.4g}", y=bar) if math.isfinite(bar) else None
    return Figure(
        id=f"weak-{judged.score.name}",
        title=f"{judged.score.name.capitalize()} in weak scaling",
        caption=f"Mean final {judged.words}; whiskers: standard deviation over seeds (n - 1), the two runs of two "
        "seeds. A gap: a run diverged or has no result.",
        x=_PROCESSES,
        y=Axis(label=judged.label),
        series=(
            Series(
                name="weak",
                x=tuple(row.processes for row in rows),
                y=tuple(None if math.isinf(row.scores.mean) else row.scores.mean for row in rows),
                low=tuple(band and band[0] for band in bands) if any(bands) else (),
                high=tuple(band and band[1] for band in bands) if any(bands) else (),
                runs=tuple(row.folder for row in rows),
            ),
        ),
        marks=() if mark is None else (mark,),
    )


def _unet_error() -> Figure:
    return Figure(
        id="unet-error",
        title="Published: error of a U-Net in weak scaling",
        caption="100 (1 - IoU), one run a point; V100 GPUs, 16 images each, Adam with lr 1e-3 x GPUs, no warmup. The "
        "IoU of the PyTorch series is of one process's shard only.",
        x=_PROCESSES,
        y=Axis(label="100 (1 - IoU)"),
        series=tuple(
            Series(name=framework, x=tuple(p.gpus for p in points), y=tuple(p.error_percent for p in points))
            for framework, points in UNET.items()
        ),
    )
