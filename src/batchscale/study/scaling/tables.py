"""Tables of strong and weak scaling, and of the published series."""

from __future__ import annotations

import math
from collections.abc import Iterator

from batchscale.records.findings import Table
from batchscale.study.evidence.judged import USUAL_POINTS
from batchscale.study.evidence.published import UNET, UNET_PER_GPU
from batchscale.study.evidence.timing import PHASES
from batchscale.study.question import Case
from batchscale.study.scaling.answer import Answer, oversubscribed, passing
from batchscale.study.scaling.question import Question
from batchscale.words import counted

_GPU = " On a GPU: the device's own time; data is how long it waited for the host."


def all_tables(case: Case[Question], answer: Answer) -> Iterator[Table]:
    """Speed and error of every mode, where its time goes; the published series where it is compared with."""
    for mode in case.question.modes:
        yield _speed(case, answer, mode)
        yield _phases(answer, mode)
    if case.question.with_unet:
        yield _unet_table(case.question)


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None or math.isinf(value) else round(value, digits)


def _speed(case: Case[Question], answer: Answer, mode: str) -> Table:
    judged, rows = answer.judged, answer.of_mode(mode)
    places = any(row.nodes for row in rows)
    return Table(
        title=f"{mode.capitalize()} scaling",
        columns=(
            "processes", "images a process", "minibatch kn", "images/s", "speed-up", "efficiency",
            "short of ideal (%)", "training loss", judged.label, "deviation", "more threads than cores",
            *(["nodes"] if places else []),
        ),
        rows=tuple(
            (
                row.processes, _rounded(row.per_process, 2), row.minibatch, _rounded(row.images_per_second, 1),
                _rounded(row.speed_up, 3), _rounded(row.efficiency, 3),
                None if row.efficiency is None else round(100 * (1 - row.efficiency), 1),
                _rounded(row.losses.mean, 4), _rounded(row.scores.mean, 3), _rounded(row.scores.deviation(), 3),
                "yes" if oversubscribed(case, row) else "no", *([" ".join(sorted(row.nodes))] if places else []),
            )
            for row in rows
        ),
        caption="images/s: median over seeds of each run's median interval of training steps, the first left out; "
        "speed-up: median over seeds of the ratio within a seed, to its run at the smallest W, so it need not follow "
        "images/s. "
        f"Loss of the last epoch and final {judged.words}: means over seeds.",
    )  # fmt: skip


def _phases(answer: Answer, mode: str) -> Table:
    rows = answer.of_mode(mode)
    return Table(
        title=f"{mode.capitalize()} scaling: milliseconds of a step",
        columns=("processes", "data", "forward", "backward", "waiting for aggregation", "update"),
        rows=tuple((row.processes, *(_rounded(row.phases.get(phase), 3) for phase in PHASES)) for row in rows),
        caption="Of rank 0, median intervals, median over seeds. The part of the aggregation that overlaps with "
        "backward is in backward." + (_GPU if any("CUDA" in d for row in rows for d in row.devices) else ""),
    )


def _unet_table(question: Question) -> Table:
    rows, bound = [], USUAL_POINTS if question.error_bound is None else question.error_bound
    for framework, points in UNET.items():
        base = points[0]
        speeds = [(p.gpus, p.images_per_second / base.images_per_second / p.gpus) for p in points]
        errors = [(p.gpus, p.error_percent - base.error_percent) for p in points]
        speed = passing(speeds, question.efficiency_bound, falls=True)
        error = passing(errors, bound, falls=False)
        rows.append(
            (
                framework, points[-1].gpus, round(speeds[-1][1], 3), _rounded(speed.processes, 1),
                round(errors[-1][1], 1), _rounded(error.processes, 1),
            )
        )  # fmt: skip
    return Table(
        title="Published: weak scaling of a U-Net, read by the same code",
        columns=(
            "framework", "most GPUs", "efficiency there",
            f"efficiency below {question.efficiency_bound:g} at W =", "error added there (points)",
            f"more than {counted(bound, 'point', 'g')} above W = 1 at W =",
        ),
        rows=tuple(rows),
        caption=f"V100 GPUs, {UNET_PER_GPU} images each, Adam with lr 1e-3 x GPUs, no warmup, one run a point; error = "
        f"100 (1 - IoU). Empty: never within the GPUs tried. The error is not monotone, one run a point.",
    )  # fmt: skip
