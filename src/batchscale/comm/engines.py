"""What runs an all-reduce: the backend, a thread beside the training, a device's side stream."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Protocol

import torch

from batchscale.comm.collectives.hierarchical import Hierarchical
from batchscale.comm.collectives.schedule import Collective
from batchscale.comm.collectives.subgroups import SubgroupHierarchical, SubgroupTorus
from batchscale.comm.collectives.torus import Torus
from batchscale.comm.world.device import DeviceQueue, Event
from batchscale.comm.world.world import World
from batchscale.errors import UsageError

BUILTIN = "builtin"


class Reduction(Protocol):
    """An all-reduce under way."""

    def wait(self) -> None:
        """Have what comes next find the sum: on the CPU the host waits for it, on a GPU its stream alone.

        Raises:
            ProcessError: names the collective and the rank that failed.
        """


class Engine(Protocol):
    """An algorithm bound to a world."""

    def start(self, tensor: torch.Tensor, what: str) -> Reduction:
        """Begin tensor <- sum over all processes; the same order of calls on every process."""


class _Done:
    def wait(self) -> None:
        """Nothing to wait for."""


DONE = _Done()
"""Of a world of one."""


class Builtin:
    """The process group's own, asynchronous in its threads or in the device's streams."""

    def __init__(self, world: World) -> None:
        self._world = world

    def start(self, tensor: torch.Tensor, what: str) -> Reduction:
        """Begin tensor <- sum over all processes."""
        return self._world.start_all_reduce(tensor, f"{what} by {BUILTIN}")


class OnThread:
    """A blocking all-reduce as an engine.

    Args:
        submit: runs a function after those before it, on a thread.
        all_reduce: blocks.
    """

    def __init__(
        self, submit: Callable[[Callable[[], None]], Future[None]], all_reduce: Callable[[torch.Tensor, str], None]
    ) -> None:
        self._submit, self._all_reduce = submit, all_reduce

    def start(self, tensor: torch.Tensor, what: str) -> Reduction:
        """Begin tensor <- sum over all processes."""
        return _Submitted(self._submit(lambda: self._all_reduce(tensor.detach().view(-1), what)))


class Aside:
    """An all-reduce that the device runs beside the training: the call returns at once."""

    def __init__(self, world: World, all_reduce: Callable[[torch.Tensor, str], None]) -> None:
        assert world.queue is not None
        self._queue, self._all_reduce = world.queue, all_reduce

    def start(self, tensor: torch.Tensor, what: str) -> Reduction:
        """Begin tensor <- sum over all processes."""
        with self._queue.aside():
            self._all_reduce(tensor.detach().view(-1), what)
            return _Behind(self._queue, self._queue.mark())


class _Behind:
    """There when the device has come to an event."""

    def __init__(self, queue: DeviceQueue, event: Event) -> None:
        self._queue, self._event = queue, event

    def wait(self) -> None:
        """Have the current stream wait for it."""
        self._queue.follow(self._event)


class _Submitted:
    def __init__(self, future: Future[None]) -> None:
        self._future = future

    def wait(self) -> None:
        """Block until the sum is there."""
        self._future.result()


def in_subgroups(world: World, collective: Collective) -> Callable[[], Engine]:
    """On GPUs: the backend's own collectives in sub-groups."""
    if isinstance(collective, Torus):
        torus = collective
        return lambda: Aside(world, SubgroupTorus(world, torus).all_reduce)
    if isinstance(collective, Hierarchical):
        hierarchical = collective
        return lambda: Aside(world, SubgroupHierarchical(world, hierarchical).all_reduce)
    raise UsageError(
        f"execution.aggregation.algorithm={collective.name}: is not made for GPUs; "
        f"use builtin, torus, hierarchical or auto"
    )
