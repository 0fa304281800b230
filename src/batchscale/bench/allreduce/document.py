"""Times -> the JSON document of ``bench allreduce``.

    bus bandwidth = 2 (W - 1) / W bytes / seconds
    share of the limit = bus bandwidth / what each process copies a second while all W copy as many bytes

2 (W - 1) / W of the bytes is what every process must send at least; the copy reads and writes all of them. In place,
shared memory reads and writes as much as the copy does, so at memory's speed its share is 2 (W - 1) / W.

Source: Patarasuk and Yuan 2009 for the bound; bus bandwidth as nccl-tests defines it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchscale.bench.allreduce.fit import fit
from batchscale.bench.allreduce.rows import COPY_ALL, COPY_ONE, ELEMENT_BYTES, AllReduceAssignment, algorithm_of
from batchscale.bench.documents import AllReduceDocument, AllReduceRow, AutoRow, LimitRow
from batchscale.bench.results import UNSTEADY_RANGE, machine_conditions
from batchscale.bench.statistics import Spread, paired_ratio, spread
from batchscale.build.algorithm import machine
from batchscale.comm import Choice, World
from batchscale.comm.collectives import make
from batchscale.comm.collectives.schedule import Cost
from batchscale.comm.reducer import BUILTIN, SHARED_MEMORY

if TYPE_CHECKING:
    from batchscale.bench.allreduce.measure import Measurement

_LIKE = {BUILTIN: "ring", SHARED_MEMORY: "direct"}
"""Whose declared cost an algorithm without a schedule has: Gloo's all-reduce is a ring."""


def document(
    assignment: AllReduceAssignment,
    measurements: Sequence[Measurement],
    auto: Sequence[Sequence[Measurement]],
    choice: Choice,
    file: Path | None,
    notes: Sequence[str],
) -> AllReduceDocument:
    """What ``batchscale bench allreduce --json`` prints.

    Args:
        assignment: what the processes were told.
        measurements: every row, and the copies, at every size.
        auto: for every size the backend as shipped, as tuned, and the choice, with paired times.
        choice: that was made of the measurements.
        file: where it is stored.
        notes: what was left out, and why.
    """
    processes = assignment.processes
    limit = _limit(processes, measurements)
    each = {entry.bytes: entry.each_gigabytes_per_second for entry in limit}
    rows = [_row(processes, one, each[one.size]) for one in measurements if not one.is_copy]
    names = dict.fromkeys(row.algorithm for row in rows)
    return AllReduceDocument(
        processes=processes,
        rows=rows,
        auto=[_auto(processes, choice, *group) for group in auto],
        fit={name: _fit([row for row in rows if row.algorithm == name]) for name in names},
        limit=limit,
        choice={"limits": [list(pair) for pair in choice.limits], "why": choice.why, "file": file and str(file)},
        conditions={
            **machine_conditions(),
            "machine": machine(World(size=processes)),
            "threads": assignment.threads,
            "rounds": max(len(measurement.times) for measurement in measurements),
            "auto_rounds": len(auto[0][0].times),
        },
        notes=list(notes),
    )


def cost_of(row: str, processes: int, size: int) -> Cost:
    """Steps and elements of an all-reduce of so many bytes on one host, as its schedule declares."""
    name = algorithm_of(row)
    collective = make(_LIKE.get(name, name), processes, [range(processes)])
    return collective.cost(processes, size // ELEMENT_BYTES)


def bus_gigabytes(processes: int, size: int, seconds: float) -> float:
    """Bus bandwidth, GB/s."""
    return 2 * (processes - 1) / processes * size / seconds / 1e9


def _row(processes: int, measurement: Measurement, limit_gigabytes: float) -> AllReduceRow:
    seconds, cost = spread(measurement.times), cost_of(measurement.row, processes, measurement.size)
    bus = bus_gigabytes(processes, measurement.size, seconds.median)
    return AllReduceRow(
        algorithm=measurement.row,
        bytes=measurement.size,
        seconds=seconds.median,
        iqr_seconds=seconds.iqr,
        bus_gigabytes_per_second=bus,
        share_of_limit=bus / limit_gigabytes,
        steps=cost.steps,
        sent_bytes=cost.elements_sent * ELEMENT_BYTES,
        blocks=len(measurement.times),
        repetitions=measurement.repetitions,
    )


def _limit(processes: int, measurements: Sequence[Measurement]) -> list[LimitRow]:
    """GB/s of copying, by size: one process alone; each while all copy; all together."""
    seconds = {(one.row, one.size): spread(one.times).median for one in measurements if one.is_copy}
    rows = []
    for size in sorted({measurement.size for measurement in measurements}):
        each = size / seconds[COPY_ALL, size] / 1e9
        rows.append(
            LimitRow(
                bytes=size,
                one_gigabytes_per_second=size / seconds[COPY_ONE, size] / 1e9,
                each_gigabytes_per_second=each,
                all_gigabytes_per_second=each * processes,
            )
        )
    return rows


def _auto(processes: int, choice: Choice, shipped: Measurement, tuned: Measurement, auto: Measurement) -> AutoRow:
    to_shipped, to_tuned = paired_ratio(shipped.times, auto.times), paired_ratio(tuned.times, auto.times)
    seconds = spread(auto.times).median
    return AutoRow(
        bytes=auto.size,
        algorithm=choice.algorithm(auto.size),
        seconds=seconds,
        builtin_seconds=spread(shipped.times).median,
        builtin_tuned_seconds=spread(tuned.times).median,
        bus_gigabytes_per_second=bus_gigabytes(processes, auto.size, seconds),
        builtin_to_auto=to_shipped.median,
        builtin_to_auto_iqr=to_shipped.iqr,
        builtin_tuned_to_auto=to_tuned.median,
        builtin_tuned_to_auto_iqr=to_tuned.iqr,
        not_measurable_now=_unsteady(to_shipped) or _unsteady(to_tuned),
    )


def _unsteady(ratio: Spread) -> bool:
    """Whether a ratio's range, as a part of it (these lie far from 1), is too wide to rely on."""
    return ratio.iqr > UNSTEADY_RANGE * ratio.median


def _fit(rows: Sequence[AllReduceRow]) -> dict[str, Any]:
    """alpha and beta from the times of one algorithm, of which every size has its declared cost."""
    steps = [row.steps for row in rows if row.steps is not None]
    sent = [row.sent_bytes for row in rows if row.sent_bytes is not None]
    return vars(fit(steps, sent, [row.seconds for row in rows]))
