"""One of the W processes: holds the tensors, and reduces or copies as it is told.

<- {"available": [...], "missing": {...}, "in_place": true, "notes": [...]}
-> {"row": "ring", "bytes": 4096, "repetitions": 20, "limits": null}
<- {"seconds": ...}                                  of one repetition, the mean of these
-> {"copy": "all" | "one", "bytes": ..., "repetitions": ...}
<- {"seconds": ...}                                  0 for who did not copy
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from batchscale.bench.allreduce.rows import AUTO, ELEMENT_BYTES, SHIPPED, AllReduceAssignment, algorithm_of
from batchscale.bench.meter import Meter
from batchscale.comm import Choice, Reducer, World
from batchscale.comm.reducer import BUILTIN, SHARED_MEMORY
from batchscale.comm.world.gloo import BATCH, OTHER, schedule_gloo_threads
from batchscale.errors import ProcessError

ASSIGNMENT = AllReduceAssignment
_TIMEOUT_SECONDS = 60.0


class _Process:
    """The tensors of this process, all zeros between measurements.

    Args:
        assignment: what every process is told.

    Attributes:
        available: algorithms.
        in_place: whether ``zeros`` gave memory that the processes share.
    """

    def __init__(self, assignment: AllReduceAssignment) -> None:
        self._world = World.connect(torch.device("cpu"), _TIMEOUT_SECONDS)
        self.reducer = Reducer(self._world)
        self.available = self.reducer.available()
        length = assignment.most_bytes // ELEMENT_BYTES
        notes = len(self.reducer.notes)
        self._shared = self.reducer.zeros(length, torch.float32)  # as training's gradients
        self.in_place = SHARED_MEMORY in self.available and len(self.reducer.notes) == notes
        self._private = torch.zeros(length)  # as anybody's tensor
        self._copied = torch.zeros(length)
        self._word = torch.zeros(1)

    def check(self, row: str, size: int) -> None:
        """Reduce ones, and see that their sum is W: a wrong sum has no speed.

        Raises:
            ProcessError: it is not.
        """
        tensor = self._tensor(row, size)
        tensor.fill_(1.0)
        self._reduce(row, tensor)
        wrong = int((tensor != self._world.size).sum())
        tensor.zero_()
        self._meet()  # nobody begins anew in memory that another one is still looking at
        if wrong:
            raise ProcessError(f"{row}: {wrong} of {len(tensor)} sums are wrong")

    def seconds(self, row: str, size: int, repetitions: int) -> float:
        """Of one all-reduce of so many bytes."""
        schedule_gloo_threads(OTHER if row == SHIPPED else BATCH)
        tensor = self._tensor(row, size)
        if repetitions > 1:  # caches and connections; a single one is so long that they do not count
            self._reduce(row, tensor)
        self._meet()
        return _mean_seconds(lambda: self._reduce(row, tensor), repetitions)

    def copy_seconds(self, who: str, size: int, repetitions: int) -> float:
        """Of copying so many bytes."""
        self._meet()
        if who == "one" and self._world.rank:
            return 0.0
        length = size // ELEMENT_BYTES
        source, target = self._private[:length], self._copied[:length]
        return _mean_seconds(lambda: target.copy_(source), repetitions)

    def _tensor(self, row: str, size: int) -> torch.Tensor:
        """Where the row's tensor lies: in shared memory where training would put it, else in this process's own."""
        whole = self._shared if row in (AUTO, SHARED_MEMORY) else self._private
        return whole[: size // ELEMENT_BYTES]

    def _reduce(self, row: str, tensor: torch.Tensor) -> None:
        self.reducer.all_reduce(tensor, f"measuring {row}", None if row == AUTO else algorithm_of(row))

    def _meet(self) -> None:
        """Until all are here; by shared memory, if there is some, so that all leave at the same time."""
        self.reducer.all_reduce(self._word, "meeting", SHARED_MEMORY if self.in_place else BUILTIN)


def _mean_seconds(act: Callable[[], object], repetitions: int) -> float:
    start = time.perf_counter()
    for _ in range(repetitions):
        act()
    return (time.perf_counter() - start) / repetitions


def main(assignment: AllReduceAssignment, meter: Meter) -> None:
    """Do as told, without end."""
    process = _Process(assignment)
    order: dict[str, Any] = meter.answer(
        available=process.available,
        missing=process.reducer.missing(),
        in_place=process.in_place,
        notes=process.reducer.notes,
    )
    while True:
        if order.get("limits"):
            process.reducer.use(Choice(tuple((limit, name) for limit, name in order["limits"])))
        size, repetitions = order["bytes"], order["repetitions"]
        if "copy" in order:
            seconds = process.copy_seconds(order["copy"], size, repetitions)
        elif repetitions:
            seconds = process.seconds(order["row"], size, repetitions)
        else:
            process.check(order["row"], size)
            seconds = 0.0
        order = meter.answer(seconds=seconds)
