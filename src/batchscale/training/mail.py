"""Rows of numbers on their way from a device to its host, which goes on meanwhile."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from batchscale.aggregate.fast import WHAT
from batchscale.comm import World
from batchscale.training.answer import Row


class Mail:
    """Rows on their way to the host, each in pinned memory and with an event behind it.

    Args:
        world: whose device it is.
    """

    def __init__(self, world: World) -> None:
        self._queue = world.queue
        # With a bound only where others may keep the device from it.
        self._wait = partial(world.exchanges.wait_for_device, WHAT) if world.size > 1 else _synchronize
        self._free: list[torch.Tensor] = []

    def send(self, row: torch.Tensor) -> Row:
        """Begin the copy; returns what waits for it."""
        pinned = self._free.pop() if self._free else _host_row(row, pinned=self._queue is not None)
        pinned.copy_(row, non_blocking=True)
        event = self._queue.mark() if self._queue is not None else None

        def read() -> list[float]:
            if event is not None:
                self._wait(event)
            values: list[float] = pinned.tolist()
            self._free.append(pinned)
            return values

        return read


def _synchronize(event: Any) -> None:
    event.synchronize()


def _host_row(row: torch.Tensor, pinned: bool) -> torch.Tensor:
    return torch.empty(row.shape, dtype=row.dtype, pin_memory=pinned)
