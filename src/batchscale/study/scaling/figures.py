"""Figures of strong and weak scaling."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from batchscale.records.findings import Axis, Figure, Mark, Series
from batchscale.study.evidence.published import UNET
from batchscale.study.evidence.timing import PHASES
from batchscale.study.scaling.question import STRONG, WEAK, Question, Row

_PROCESSES = Axis(label="processes W", scale="log2")
_WORDS = {"aggregation": "waiting for aggregation"}


def figures(question: Question, rows: Sequence[Row], unet: bool, on: str) -> tuple[Figure, ...]:
    """Speed-up, efficiency, phases of each mode, error in weak scaling, the published error."""
    made = [_speed_up(question, rows, unet), _efficiency(question, rows, unet)]
    made += [_phases(mode, rows) for mode in question.modes]
    if WEAK in question.modes:
        made.append(_error(question, rows, on))
    if unet:
        made.append(_unet_error())
    return tuple(made)


def _of(question: Question, rows: Sequence[Row]) -> Iterator[tuple[str, list[Row]]]:
    """(mode, its rows)."""
    for mode in question.modes:
        yield mode, [row for row in rows if row.mode == mode]


def _speed_up(question: Question, rows: Sequence[Row], unet: bool) -> Figure:
    first = question.processes[0]
    most = max(question.processes[-1], 14 if unet else 0)
    series = [Series(name="ideal", x=(first, most), y=(1.0, most / first), style="dashed")]
    for mode, of in _of(question, rows):
        several = all(len(row.speed_ups) > 1 for row in of)
        series.append(
            Series(
                name=mode,
                x=tuple(row.processes for row in of),
                y=tuple(row.speed_up for row in of),
                low=tuple(min(row.speed_ups.values()) for row in of) if several else (),
                high=tuple(max(row.speed_ups.values()) for row in of) if several else (),
                runs=tuple(row.folder for row in of),
            )
        )
    for framework, points in UNET.items() if unet else ():
        speeds = tuple(m.images_per_second / points[0].images_per_second for m in points)
        series.append(
            Series(name=f"U-Net, {framework} (published)", x=tuple(m.gpus for m in points), y=speeds, style="points")
        )
    return Figure(
        id="speed-up",
        title="Speed-up against processes",
        caption=f"images/s against that of the same seed at W = {first}, median over seeds; whiskers: lowest and "
        "highest.",
        x=_PROCESSES,
        y=Axis(label="speed-up", scale="log2"),
        series=tuple(series),
    )


def _efficiency(question: Question, rows: Sequence[Row], unet: bool) -> Figure:
    series = [
        Series(
            name=mode,
            x=tuple(row.processes for row in of),
            y=tuple(row.efficiency for row in of),
            runs=tuple(row.folder for row in of),
        )
        for mode, of in _of(question, rows)
    ]
    for framework, points in UNET.items() if unet else ():
        shares = tuple(m.images_per_second / points[0].images_per_second / m.gpus for m in points)
        series.append(
            Series(name=f"U-Net, {framework} (published)", x=tuple(m.gpus for m in points), y=shares, style="points")
        )
    marks = (Mark(label=f"bound {question.efficiency_bound:g}", y=question.efficiency_bound),)
    return Figure(
        id="efficiency",
        title="Efficiency against processes",
        caption="Speed-up over the ideal one.",
        x=_PROCESSES,
        y=Axis(label="efficiency"),
        series=tuple(series),
        marks=marks if STRONG in question.modes else (),
    )


def _phases(mode: str, rows: Sequence[Row]) -> Figure:
    of = [row for row in rows if row.mode == mode and row.phases]
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
                x=tuple(row.processes for row in of),
                y=tuple(row.phases[phase] for row in of),
            )
            for phase in PHASES
        ),
    )


def _error(question: Question, rows: Sequence[Row], on: str) -> Figure:
    of = [row for row in rows if row.mode == WEAK]
    bands = [row.errors.band() for row in of]
    bar = of[0].errors.mean + question.error_bound
    return Figure(
        id="weak-error",
        title="Error in weak scaling",
        caption=f"Mean final {on} error; whiskers: standard deviation over seeds (n - 1), the two runs of two seeds. "
        "A gap: a run diverged or has no result.",
        x=_PROCESSES,
        y=Axis(label=f"{on} error (%)"),
        series=(
            Series(
                name="weak",
                x=tuple(row.processes for row in of),
                y=tuple(None if math.isinf(row.errors.mean) else row.errors.mean for row in of),
                low=tuple(band and band[0] for band in bands) if any(bands) else (),
                high=tuple(band and band[1] for band in bands) if any(bands) else (),
                runs=tuple(row.folder for row in of),
            ),
        ),
        marks=() if math.isinf(bar) else (Mark(label=f"W = {of[0].processes} + {question.error_bound:g}", y=bar),),
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
            Series(name=framework, x=tuple(m.gpus for m in points), y=tuple(m.error_percent for m in points))
            for framework, points in UNET.items()
        ),
    )
