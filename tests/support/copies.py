"""A device that copies as late as it may, and sees where that goes wrong."""

from __future__ import annotations

import random
import threading
from dataclasses import dataclass
from typing import Any

import torch

from batchscale.data.feed.copies import Copy


@dataclass(eq=False)
class Event:
    """Behind one copy."""

    number: int


class LateCopies:
    """Copies to the CPU in a device's place.

    A copy reads its source when its event is waited for, or at some time before: never sooner than it must, by
    ``eager=0``. What it reads then must be what was there when it was begun.

    Args:
        eager: how likely a copy is run at any later call.
        seed: of that.

    Attributes:
        log: what was called, in order: (name, number of the copy).
        races: copies whose source was written before they had read it.
    """

    def __init__(self, eager: float = 0.0, seed: int = 0) -> None:
        self._eager, self._random = eager, random.Random(seed)
        self._lock = threading.RLock()  # a feed's thread waits while another one begins
        self._waiting: list[tuple[Event, torch.Tensor, torch.Tensor]] = []
        self.log: list[tuple[str, int]] = []
        self.races: list[int] = []
        self.memories = 0
        self.begun = 0

    def memory(self, num_bytes: int) -> torch.Tensor:
        self.memories += 1
        return torch.full((num_bytes,), 0xAA, dtype=torch.uint8)

    def begin(self, source: torch.Tensor) -> Copy:
        with self._lock:
            self._some()
            event = Event(self.begun)
            self.begun += 1
            self.log.append(("begin", event.number))
            target = source.clone()
            self._waiting.append((event, source, target.clone()))
            return Copy(target, event)

    def join(self, copy: Copy) -> None:
        with self._lock:
            self._some()
            self.log.append(("join", copy.event.number))

    def wait(self, event: Any) -> None:
        with self._lock:
            self.log.append(("wait", event.number))
            while any(waiting is event for waiting, _, _ in self._waiting):
                self._run_first()

    def _some(self) -> None:
        while self._waiting and self._random.random() < self._eager:
            self._run_first()

    def _run_first(self) -> None:
        event, source, expected = self._waiting.pop(0)
        if not torch.equal(source, expected):
            self.races.append(event.number)

    def finish(self) -> None:
        while self._waiting:
            self._run_first()
