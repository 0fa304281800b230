"""batchscale bench allreduce: every algorithm at every size in turn, the choice, and the choice timed afresh."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from batchscale.aggregate.choice import Times, fastest
from batchscale.bench.allreduce.document import document
from batchscale.bench.allreduce.rows import (
    AUTO,
    COPIED,
    COPY_ALL,
    COPY_ONE,
    MB,
    SHIPPED,
    SIZES,
    AllReduceTask,
    rows_of,
)
from batchscale.bench.contender import Contender
from batchscale.bench.turns import in_turn, stop_check
from batchscale.build.algorithm import store, stored_file
from batchscale.comm import Choice, World
from batchscale.comm.reducer import BUILTIN, SHARED_MEMORY
from batchscale.comm.shared.mapping import free_bytes
from batchscale.comm.world.gloo import BATCH
from batchscale.errors import FolderError, UsageError
from batchscale.launch.signals import StopSignals
from batchscale.system.temporary import temporary_folder

MOST_PROCESSES = 64
_TENSORS = 4  # as long as the longest, that a process holds; an algorithm's own buffers count as one
_SLOW, _LONG_SECONDS, _EVERY = 3.0, 0.1, 3  # blocks this long, of rows this much slower than the best, are rarer
_ALGORITHMS_SHARE = 0.6  # of the time; the rest is for the choice against the backend


@dataclass(frozen=True)
class Budget:
    """How long to measure.

    Args:
        total_seconds: of the whole benchmark, starting the processes included.
        block_seconds: of one row's turn at one size; at least one all-reduce.
        min_rounds, max_rounds: rounds, whatever the time says.
    """

    total_seconds: float
    block_seconds: float = 0.04
    min_rounds: int = 3
    max_rounds: int = 60


def default_seconds(processes: int) -> int:
    """3 minutes for two processes, 5 for eight, at most 10."""
    return min(140 + 20 * processes, 600)


@dataclass
class Cell:
    """One row at one size, its times, one a block, and how many all-reduces they are the means of."""

    row: str
    size: int
    expected_seconds: float = 0.0
    every: int = 1
    repetitions: int = 0
    times: list[float] = field(default_factory=list)

    def order(self, repetitions: int) -> dict[str, Any]:
        """What the processes are told."""
        row: dict[str, str] = {"copy": self.row.removeprefix("copy_")} if self.is_copy else {"row": self.row}
        return {**row, "bytes": self.size, "repetitions": repetitions}

    @property
    def is_copy(self) -> bool:
        """Whether this copies, in place of reducing."""
        return self.row in (COPY_ONE, COPY_ALL)


class _Measurement:
    """W processes, told what to measure."""

    def __init__(self, contender: Contender, budget: Budget, say: Callable[[str], None]) -> None:
        self._contender, self._budget, self._say = contender, budget, say

    def warm_up(self, cells: Sequence[Cell], limits: Sequence[tuple[int, str]] = ()) -> None:
        """Check that every row sums right, and time it once."""
        for cell in cells:
            if not cell.is_copy:
                self._contender.ask({**cell.order(0), "limits": limits})
            cell.expected_seconds = self._seconds(cell, 1)

    def rounds(self, groups: Sequence[Sequence[Cell]], until: float, what: str) -> None:
        """All cells once a round, those of a group one after another, in an order that changes from round to round."""
        number, longest = 0, 0.0
        while number < self._budget.min_rounds or (
            number < self._budget.max_rounds and time.monotonic() + longest < until
        ):
            begin = time.monotonic()
            for group in groups:
                for cell in in_turn(group, number):
                    if number % cell.every == 0:
                        self._block(cell)
            number += 1
            longest = max(longest, time.monotonic() - begin)
            self._say(f"{what}: round {number} done, {max(until - time.monotonic(), 0):.0f} s left")

    def _block(self, cell: Cell) -> None:
        repetitions = max(round(self._budget.block_seconds / max(cell.expected_seconds, 1e-9)), 1)
        cell.times.append(self._seconds(cell, repetitions))
        cell.repetitions += repetitions
        cell.expected_seconds = statistics.median(cell.times)

    def _seconds(self, cell: Cell, repetitions: int) -> float:
        answers = self._contender.ask(cell.order(repetitions), cell.expected_seconds * repetitions)
        return max(float(answer["seconds"]) for answer in answers)


def bench_allreduce(
    processes: int,
    *,
    budget: Budget | None = None,
    sizes: Sequence[int] = SIZES,
    keep: bool = True,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Measure, choose, measure the choice, and keep it for the runs to come.

    Args:
        processes: W, on this machine.
        budget: how long to measure; None for ``default_seconds``.
        sizes: bytes, rising.
        keep: whether the choice is stored.
        say: told of the progress.

    Returns:
        The document of ``batchscale bench allreduce --json``.

    Raises:
        UsageError: so many processes cannot be measured.
        Stopped: a signal to stop was received.
        ProcessError: a process died, hangs, or sums wrong.
    """
    start = time.monotonic()
    _check(processes, sizes)
    budget = budget or Budget(default_seconds(processes))
    with StopSignals() as signals, temporary_folder("batchscale-bench-") as scratch:
        task = AllReduceTask(processes, sizes[-1])
        contender = Contender("allreduce", task, Path(scratch), stop_check(signals))
        try:
            say(f"starting {processes} processes")
            contender.start()
            contender.ready()
            measurement = _Measurement(contender, budget, say)
            cells = _measure_algorithms(measurement, _rows(contender), sizes, start + budget.total_seconds)
            choice = _choice(cells)
            auto = _measure_choice(measurement, choice, sizes, start + budget.total_seconds)
        finally:
            contender.close()
    notes = _notes(contender)
    file = _keep(choice, processes, notes) if keep else None
    return document(task, cells, auto, choice, file, notes)


def _check(processes: int, sizes: Sequence[int]) -> None:
    if processes < 2:
        raise UsageError(f"--processes={processes}: one process has nothing to reduce; use --processes 2 or more")
    if processes > MOST_PROCESSES:
        raise UsageError(f"--processes={processes}: at most {MOST_PROCESSES} are measured on one machine; use fewer")
    needed, free = _TENSORS * sizes[-1] * processes, free_bytes()
    if free is not None and needed > free:
        fitting = free // (_TENSORS * sizes[-1])
        raise UsageError(
            f"--processes={processes}: need {needed / MB:.0f} MB of memory, {free / MB:.0f} MB are free; "
            f"use at most {fitting}"
        )


def _rows(contender: Contender) -> list[str]:
    rows = rows_of(contender.notes["available"])
    if not contender.notes["in_place"]:
        rows = [row for row in rows if row != SHARED_MEMORY]
    return rows


def _measure_algorithms(measurement: _Measurement, rows: Sequence[str], sizes: Sequence[int], end: float) -> list[Cell]:
    """Every row and both copies at every size."""
    groups = [[Cell(row, size) for row in [*rows, COPY_ONE, COPY_ALL]] for size in sizes]
    cells = [cell for group in groups for cell in group]
    measurement.warm_up(cells)
    for group in groups:
        _thin_out([cell for cell in group if not cell.is_copy])
    now = time.monotonic()
    measurement.rounds(groups, now + _ALGORITHMS_SHARE * (end - now), "algorithms")
    return cells


def _thin_out(cells: Sequence[Cell]) -> None:
    """Of one size: long blocks of what cannot be chosen are measured in fewer rounds."""
    best = min(cell.expected_seconds for cell in cells)
    for cell in cells:
        slow = cell.expected_seconds > max(_SLOW * best, _LONG_SECONDS) and cell.row not in (SHIPPED, BUILTIN)
        cell.every = _EVERY if slow else 1


def _choice(cells: Sequence[Cell]) -> Choice:
    times: Times = {}
    for cell in cells:
        if not cell.is_copy and cell.row not in (SHIPPED, COPIED):
            times.setdefault(cell.size, {})[cell.row] = statistics.median(cell.times)
    return Choice(fastest(times), f"measured by bench allreduce on {time.strftime('%Y-%m-%d')}")


def _measure_choice(measurement: _Measurement, choice: Choice, sizes: Sequence[int], end: float) -> list[list[Cell]]:
    """For every size the backend as shipped, as tuned, and the choice: as many blocks each, round by round."""
    groups = [[Cell(row, size) for row in (SHIPPED, BUILTIN, AUTO)] for size in sizes]
    measurement.warm_up([cell for group in groups for cell in group], choice.limits)
    measurement.rounds(groups, end, "auto")
    return groups


def _notes(contender: Contender) -> list[str]:
    missing = contender.notes["missing"]
    return [
        *contender.notes["notes"],
        *(f"{name} is not measured: {reason}" for name, reason in missing.items()),
        *([] if BATCH is not None else ["builtin_shipped and builtin are the same here: there is no SCHED_BATCH"]),
    ]


def _keep(choice: Choice, processes: int, notes: list[str]) -> Path | None:
    """Store the choice; where that cannot be, say so and go on."""
    try:
        return store(choice, World(size=processes))
    except (OSError, RuntimeError, FolderError) as error:
        cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
        reason = cause.strerror if isinstance(cause, OSError) else cause
        notes.append(
            f"the choice is not stored, so every run measures anew ({_where(processes)}: {reason}); "
            f"set XDG_CACHE_HOME to a folder that can be written"
        )
        return None


def _where(processes: int) -> str:
    try:
        return str(stored_file(processes))
    except RuntimeError:
        return "no home folder"
