"""The child's side of a measurement: ``meter.step()`` at the end of every step of an endless loop.

Orders come in as lines of JSON, answers go out as such:

    <- {"steps": 1, "wall_seconds": ..., "cpu_seconds": ..., **notes}     ready: set up, and one step done
    -> 12                                                                 go: take 12 steps
    <- {"steps": 12, ...}                                                 done, and blocked until the next order
    -> (end of file)                                                      the process ends

What is no loop takes its orders itself: ``order = meter.answer(...)``.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from typing import Any, TextIO


class Meter:
    """Counts steps, and takes as many as the parent asks for.

    Args:
        orders: where the parent's lines come in.
        answers: where ours go out.
    """

    def __init__(self, orders: TextIO, answers: TextIO) -> None:
        self._orders, self._answers = orders, answers
        self._notes: dict[str, Any] = {}
        self._facts: dict[str, Callable[[], Any]] = {}
        self._cpu_clock: Callable[[], float] = time.process_time
        self._begin(1)

    def note(self, **notes: Any) -> None:
        """Facts for the next answer, such as what was chosen while setting up."""
        self._notes |= notes

    def ask(self, **facts: Callable[[], Any]) -> None:
        """Facts for every answer, each asked for when one is given."""
        self._facts |= facts

    def count_cpu(self, clock: Callable[[], float]) -> None:
        """CPU seconds by this clock, from the next order on: those of other processes, too."""
        self._cpu_clock = clock

    def step(self) -> None:
        """One step of the loop is done; blocks here between this contender's turns."""
        self._left -= 1
        if self._left:
            return
        wall, cpu = time.perf_counter() - self._wall, self._cpu_clock() - self._cpu
        facts = {name: fact() for name, fact in self._facts.items()}
        notes, self._notes = self._notes, {}
        self._begin(int(self.answer(steps=self._steps, wall_seconds=wall, cpu_seconds=cpu, **notes, **facts)))

    def answer(self, **content: Any) -> Any:
        """Answer the parent, then block until its next order; the process ends where there is none."""
        print(json.dumps(content), file=self._answers, flush=True)
        order = self._orders.readline()
        if not order:
            os._exit(0)  # a library's loop would catch an exception, and take its time to end
        return json.loads(order)

    def _begin(self, steps: int) -> None:
        self._steps = self._left = steps
        self._wall, self._cpu = time.perf_counter(), self._cpu_clock()
