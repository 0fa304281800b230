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

    def start(self, tensor: torch.Tensor, what: str, wire: torch.dtype | None = None) -> Reduction:
        """Begin tensor <- sum over all processes; the same order of calls on every process.

        Args:
            tensor: contiguous.
            what: is summed, for errors.
            wire: type that is sent; None for the tensor's own.
        """


class _Done:
    def wait(self) -> None:
        """Nothing to wait for."""


DONE = _Done()
"""Of a world of one."""


class Builtin:
    """The process group's own, asynchronous in its threads or in the device's streams."""

    def __init__(self, world: World) -> None:
        self._world = world

    def start(self, tensor: torch.Tensor, what: str, wire: torch.dtype | None = None) -> Reduction:
        """Begin tensor <- sum over all processes; the backend adds in the type that it sends."""
        name = f"{what} by {BUILTIN}"
        if wire is None:
            return self._world.start_all_reduce(tensor, name)
        narrow = tensor.to(wire)
        return _Narrow(self._world.start_all_reduce(narrow, name), narrow, tensor)


class _Narrow:
    """The sum of a tensor that was rounded into another one."""

    def __init__(self, reduction: Reduction, narrow: torch.Tensor, tensor: torch.Tensor) -> None:
        self._reduction, self._narrow, self._tensor = reduction, narrow, tensor

    def wait(self) -> None:
        """Have the sum in the tensor itself."""
        self._reduction.wait()
        self._tensor.copy_(self._narrow)


class OnThread:
    """A blocking all-reduce as an engine.

    Args:
        submit: runs a function after those before it, on a thread.
        all_reduce: (tensor, what, wire); blocks.
    """

    def __init__(
        self,
        submit: Callable[[Callable[[], None]], Future[None]],
        all_reduce: Callable[[torch.Tensor, str, torch.dtype | None], None],
    ) -> None:
        self._submit, self._all_reduce = submit, all_reduce

    def start(self, tensor: torch.Tensor, what: str, wire: torch.dtype | None = None) -> Reduction:
        """Begin tensor <- sum over all processes."""
        return _Submitted(self._submit(lambda: self._all_reduce(tensor.detach().view(-1), what, wire)))


class Aside:
    """An all-reduce that the device runs beside the training: the call returns at once."""

    def __init__(self, world: World, all_reduce: Callable[[torch.Tensor, str], None]) -> None:
        assert world.queue is not None
        self._queue, self._all_reduce = world.queue, all_reduce

    def start(self, tensor: torch.Tensor, what: str, wire: torch.dtype | None = None) -> Reduction:
        """Begin tensor <- sum over all processes; the backend adds in the type that it sends."""
        flat = tensor.detach().view(-1)
        with self._queue.aside():
            narrow = flat if wire is None else flat.to(wire)
            self._all_reduce(narrow, what)
            if wire is not None:
                flat.copy_(narrow)
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
