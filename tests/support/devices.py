"""Doubles of a GPU's queue, of NCCL's works, and of a world whose sums run on them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist

from batchscale.comm import World
from batchscale.comm.world import nccl


class FakeQueue:
    """A device's queue whose events are done when ``done`` says so; notes what ran aside, and who followed."""

    def __init__(self, done: Callable[[], bool] = lambda: True) -> None:
        self._done = done
        self.marks = 0
        self.host_looks = 0
        self.followed: list[Any] = []
        self.is_aside = False

    def mark(self) -> Any:
        self.marks += 1
        return SimpleNamespace(query=self._query)

    def _query(self) -> bool:
        self.host_looks += 1
        return self._done()

    def follow(self, event: Any) -> None:
        self.followed.append(event)

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        self.is_aside = True
        try:
            yield
        finally:
            self.is_aside = False


class NoWait:
    """A work like NCCL's: its wait makes a stream wait, and the host goes on."""

    def __init__(self) -> None:
        self.future: torch.futures.Future[list[torch.Tensor]] = torch.futures.Future()
        self.waits = 0

    def wait(self) -> None:
        """Nothing that the host would feel."""
        self.waits += 1

    def get_future(self) -> torch.futures.Future[list[torch.Tensor]]:
        return self.future


def like_nccl(world: World, file_folder: Any) -> World:
    """A world of Gloo whose sums behave as NCCL's do: begun, and not waited for but by an event."""
    begin = dist.all_reduce
    works: list[Any] = []

    def all_reduce(*arguments: Any, **options: Any) -> NoWait:
        works.append(begin(*arguments, **options))
        return NoWait()

    dist.all_reduce = all_reduce
    # A sum of NCCL that failed is never done; one of Gloo is, and has failed.
    world.exchanges.queue = FakeQueue(lambda: all(work.is_completed() and work.is_success() for work in works))
    nccl.recorded = lambda rank, group, device: f"; NCCL's last collectives: {file_folder}/{rank}"
    return world
