"""Times -> the JSON document of ``bench allreduce``.

    bus bandwidth = 2 (W - 1) / W bytes / seconds
    share of the limit = bus bandwidth / what each process copies a second while all W copy as many bytes

2 (W - 1) / W of the bytes is what every process must send at least; the copy reads and writes all of them. In place,
shared memory reads and writes as much as the copy does, so at memory's speed its share is 2 (W - 1) / W.

Source: Patarasuk and Yuan 2009 for the bound; bus bandwidth as nccl-tests defines it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchscale.bench.allreduce.fit import fit
from batchscale.bench.allreduce.rows import COPY_ALL, COPY_ONE, ELEMENT_BYTES, AllReduceTask, algorithm_of
from batchscale.bench.results import UNSTEADY_RANGE, machine_conditions
from batchscale.bench.statistics import Spread, paired_ratio, spread
from batchscale.build.algorithm import machine
from batchscale.comm import Choice, World
from batchscale.comm.collectives import make
from batchscale.comm.collectives.schedule import Cost
from batchscale.comm.reducer import BUILTIN, SHARED_MEMORY

if TYPE_CHECKING:
    from batchscale.bench.allreduce.measure import Cell

_LIKE = {BUILTIN: "ring", SHARED_MEMORY: "direct"}
"""Whose declared cost an algorithm without a schedule has: Gloo's all-reduce is a ring."""


def document(
    task: AllReduceTask,
    cells: Sequence[Cell],
    auto: Sequence[Sequence[Cell]],
    choice: Choice,
    file: Path | None,
    notes: Sequence[str],
) -> dict[str, Any]:
    """What ``batchscale bench allreduce --json`` prints.

    Args:
        task: what the processes were told.
        cells: every row, and the copies, at every size.
        auto: for every size the backend as shipped, as tuned, and the choice, with paired times.
        choice: that was made of the cells.
        file: where it is stored.
        notes: what was left out, and why.
    """
    limit = _limit(task.processes, cells)
    each = {entry["bytes"]: entry["each_gigabytes_per_second"] for entry in limit}
    rows = [_row(task.processes, cell, each[cell.size]) for cell in cells if not cell.is_copy]
    return {
        "processes": task.processes,
        "rows": rows,
        "auto": [_auto(task.processes, choice, *group) for group in auto],
        "fit": {name: _fit([row for row in rows if row["algorithm"] == name]) for name in _names(rows)},
        "limit": limit,
        "choice": {"limits": [list(pair) for pair in choice.limits], "why": choice.why, "file": file and str(file)},
        "conditions": {
            **machine_conditions(),
            "machine": machine(World(size=task.processes)),
            "threads": task.threads,
            "rounds": max(len(cell.times) for cell in cells),
            "auto_rounds": len(auto[0][0].times),
        },
        "notes": list(notes),
    }


def _names(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(str(row["algorithm"]) for row in rows))


def cost_of(row: str, processes: int, size: int) -> Cost:
    """Steps and elements of an all-reduce of so many bytes on one host, as its schedule declares."""
    name = algorithm_of(row)
    collective = make(_LIKE.get(name, name), processes, [range(processes)])
    return collective.cost(processes, size // ELEMENT_BYTES)


def bus_gigabytes(processes: int, size: int, seconds: float) -> float:
    """Bus bandwidth, GB/s."""
    return 2 * (processes - 1) / processes * size / seconds / 1e9


def _row(processes: int, cell: Cell, limit_gigabytes: float) -> dict[str, Any]:
    seconds, cost = spread(cell.times), cost_of(cell.row, processes, cell.size)
    bus = bus_gigabytes(processes, cell.size, seconds.median)
    return {
        "algorithm": cell.row,
        "bytes": cell.size,
        "seconds": seconds.median,
        "iqr_seconds": seconds.iqr,
        "bus_gigabytes_per_second": bus,
        "share_of_limit": bus / limit_gigabytes,
        "steps": cost.steps,
        "sent_bytes": cost.elements_sent * ELEMENT_BYTES,
        "blocks": len(cell.times),
        "repetitions": cell.repetitions,
    }


def _limit(processes: int, cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """GB/s of copying, by size: one process alone; each while all copy; all together."""
    seconds = {(cell.row, cell.size): spread(cell.times).median for cell in cells if cell.is_copy}
    found = []
    for size in sorted({cell.size for cell in cells}):
        each = size / seconds[COPY_ALL, size] / 1e9
        found.append(
            {
                "bytes": size,
                "one_gigabytes_per_second": size / seconds[COPY_ONE, size] / 1e9,
                "each_gigabytes_per_second": each,
                "all_gigabytes_per_second": each * processes,
            }
        )
    return found


def _auto(processes: int, choice: Choice, shipped: Cell, tuned: Cell, auto: Cell) -> dict[str, Any]:
    to_shipped, to_tuned = paired_ratio(shipped.times, auto.times), paired_ratio(tuned.times, auto.times)
    seconds = spread(auto.times).median
    return {
        "bytes": auto.size,
        "algorithm": choice.algorithm(auto.size),
        "seconds": seconds,
        "builtin_seconds": spread(shipped.times).median,
        "builtin_tuned_seconds": spread(tuned.times).median,
        "bus_gigabytes_per_second": bus_gigabytes(processes, auto.size, seconds),
        "builtin_to_auto": to_shipped.median,
        "builtin_to_auto_iqr": to_shipped.iqr,
        "builtin_tuned_to_auto": to_tuned.median,
        "builtin_tuned_to_auto_iqr": to_tuned.iqr,
        "not_measurable_now": _unsteady(to_shipped) or _unsteady(to_tuned),
    }


def _unsteady(ratio: Spread) -> bool:
    """Whether a ratio's range, as a part of it (these lie far from 1), is too wide to rely on."""
    return ratio.iqr > UNSTEADY_RANGE * ratio.median


def _fit(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    found = fit([r["steps"] for r in rows], [r["sent_bytes"] for r in rows], [r["seconds"] for r in rows])
    return vars(found)
