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
    AllReduceAssignment,
    rows_of,
)
from batchscale.bench.contender import Contender
from batchscale.bench.findings import findings_of
from batchscale.bench.rounds import Budget
from batchscale.bench.turns import in_turn, stop_check
from batchscale.build.algorithm import store, stored_file
from batchscale.comm import Choice, World
from batchscale.comm.reducer import BUILTIN, SHARED_MEMORY
from batchscale.comm.shared.mapping import free_bytes
from batchscale.comm.world.gloo import BATCH
from batchscale.errors import FolderError, UsageError
from batchscale.launch.signals import StopSignals
from batchscale.records.findings import Findings
from batchscale.system.temporary import temporary_folder

MOST_PROCESSES = 64
_TENSORS = 4  # as long as the longest, that a process holds; an algorithm's own buffers count as one
_SLOW, _LONG_SECONDS, _EVERY = 3.0, 0.1, 3  # blocks this long, of rows this much slower than the best, are rarer
_ALGORITHMS_SHARE = 0.6  # of the time; the rest is for the choice against the backend


def budget_of(processes: int, total_seconds: float | None = None) -> Budget:
    """How long W processes are measured; None: 3 minutes for two, 5 for eight, at most 10.

    A turn is one row at one size, of one all-reduce at least.
    """
    if total_seconds is None:
        total_seconds = min(140 + 20 * processes, 600)
    return Budget(total_seconds, block_seconds=0.04, min_rounds=3, max_rounds=60)


@dataclass
class Measurement:
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


class _Reducers:
    """W processes, told what to measure."""

    def __init__(self, contender: Contender, budget: Budget, say: Callable[[str], None]) -> None:
        self._contender, self._budget, self._say = contender, budget, say

    def warm_up(self, measurements: Sequence[Measurement], limits: Sequence[tuple[int, str]] = ()) -> None:
        """Check that every row sums right, and time it once."""
        for measurement in measurements:
            if not measurement.is_copy:
                self._contender.ask({**measurement.order(0), "limits": limits})
            measurement.expected_seconds = self._seconds(measurement, 1)

    def rounds(self, groups: Sequence[Sequence[Measurement]], until: float, what: str) -> None:
        """All once a round, those of a group one after another, in an order that changes from round to round."""
        number, longest = 0, 0.0
        while number < self._budget.min_rounds or (
            number < self._budget.max_rounds and time.monotonic() + longest < until
        ):
            begin = time.monotonic()
            for group in groups:
                for measurement in in_turn(group, number):
                    if number % measurement.every == 0:
                        self._block(measurement)
            number += 1
            longest = max(longest, time.monotonic() - begin)
            self._say(f"{what}: round {number} done, {max(until - time.monotonic(), 0):.0f} s left")

    def _block(self, measurement: Measurement) -> None:
        repetitions = max(round(self._budget.block_seconds / max(measurement.expected_seconds, 1e-9)), 1)
        measurement.times.append(self._seconds(measurement, repetitions))
        measurement.repetitions += repetitions
        measurement.expected_seconds = statistics.median(measurement.times)

    def _seconds(self, measurement: Measurement, repetitions: int) -> float:
        answers = self._contender.ask(measurement.order(repetitions), measurement.expected_seconds * repetitions)
        return max(float(answer["seconds"]) for answer in answers)


def bench_allreduce(
    processes: int,
    *,
    budget: Budget | None = None,
    sizes: Sequence[int] = SIZES,
    keep: bool = True,
    say: Callable[[str], None] = lambda line: None,
) -> Findings:
    """Measure, choose, measure the choice, and keep it for the runs to come.

    Args:
        processes: W, on this machine.
        budget: how long to measure; None for ``budget_of``.
        sizes: bytes, rising.
        keep: whether the choice is stored.
        say: told of the progress.

    Returns:
        Its result is the document of ``batchscale bench allreduce --json``.

    Raises:
        UsageError: so many processes cannot be measured.
        BenchStopped: a signal to stop was received.
        ProcessError: a process died, hangs, or sums wrong.
    """
    start = time.monotonic()
    _check(processes, sizes)
    budget = budget or budget_of(processes)
    with StopSignals() as signals, temporary_folder("batchscale-bench-") as scratch:
        assignment = AllReduceAssignment(processes, sizes[-1])
        contender = Contender("allreduce", assignment, Path(scratch), stop_check(signals))
        try:
            say(f"starting {processes} processes")
            contender.start()
            contender.ready()
            reducers = _Reducers(contender, budget, say)
            measurements = _measure_algorithms(reducers, _rows(contender), sizes, start + budget.total_seconds)
            choice = _choice(measurements)
            auto = _measure_choice(reducers, choice, sizes, start + budget.total_seconds)
        finally:
            contender.close()
    notes = _notes(contender)
    file = _keep(choice, processes, notes) if keep else None
    return findings_of(document(assignment, measurements, auto, choice, file, notes))


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


def _measure_algorithms(
    reducers: _Reducers, rows: Sequence[str], sizes: Sequence[int], end: float
) -> list[Measurement]:
    """Every row and both copies at every size."""
    groups = [[Measurement(row, size) for row in [*rows, COPY_ONE, COPY_ALL]] for size in sizes]
    measurements = [measurement for group in groups for measurement in group]
    reducers.warm_up(measurements)
    for group in groups:
        _thin_out([measurement for measurement in group if not measurement.is_copy])
    now = time.monotonic()
    reducers.rounds(groups, now + _ALGORITHMS_SHARE * (end - now), "algorithms")
    return measurements


def _thin_out(measurements: Sequence[Measurement]) -> None:
    """Of one size: long blocks of what cannot be chosen are measured in fewer rounds."""
    best = min(measurement.expected_seconds for measurement in measurements)
    for measurement in measurements:
        is_slow = measurement.expected_seconds > max(_SLOW * best, _LONG_SECONDS)
        measurement.every = _EVERY if is_slow and measurement.row not in (SHIPPED, BUILTIN) else 1


def _choice(measurements: Sequence[Measurement]) -> Choice:
    times: Times = {}
    for measurement in measurements:
        if not measurement.is_copy and measurement.row not in (SHIPPED, COPIED):
            times.setdefault(measurement.size, {})[measurement.row] = statistics.median(measurement.times)
    return Choice(fastest(times), f"measured by bench allreduce on {time.strftime('%Y-%m-%d')}")


def _measure_choice(reducers: _Reducers, choice: Choice, sizes: Sequence[int], end: float) -> list[list[Measurement]]:
    """For every size the backend as shipped, as tuned, and the choice: as many blocks each, round by round."""
    groups = [[Measurement(row, size) for row in (SHIPPED, BUILTIN, AUTO)] for size in sizes]
    reducers.warm_up([measurement for group in groups for measurement in group], choice.limits)
    reducers.rounds(groups, end, "auto")
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
