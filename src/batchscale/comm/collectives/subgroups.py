"""Torus and hierarchical all-reduces by the backend's own collectives in sub-groups: the way to run them on NCCL.

torus: all-gather_row(all-reduce_column(reduce-scatter_row(buffer))); hierarchical: broadcast(all-reduce(reduce))

Every row, column or group of ranks is one process group; the torus pads a length to a whole number of pieces.
Bytes per process: as in `comm/collectives/`, if the backend's own collectives send what a ring does (Gloo's
reduce-scatter is an all-reduce and a cut: 3 in place of 2 parts of the buffer cross the wire in a row).

Sources: Mikami et al. 2018, section 2.2; Jia et al. 2018, section 3.3.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from batchscale.comm.collectives.hierarchical import Hierarchical
from batchscale.comm.collectives.torus import Torus
from batchscale.comm.world import nccl
from batchscale.comm.world.messages import brought_by
from batchscale.comm.world.world import World


class _Subgroups(ABC):
    name: str

    def __init__(self, world: World) -> None:
        self._world = world

    def all_reduce(self, tensor: torch.Tensor, what: str = "all-reduce") -> None:
        """tensor <- sum over all processes of tensor; the same order of calls on every process.

        Args:
            tensor: (length,), contiguous, on the world's device.
            what: the exchange in words, for errors.

        Raises:
            ProcessError: a rank died, hangs, or brought another length or type where it never did before.
        """
        if self._world.size == 1 or not len(tensor):
            return
        name, brought = f"{what} by {self.name} in sub-groups", brought_by(tensor)
        exchanges = self._world.exchanges

        def run() -> None:
            exchanges.meet(name, brought)
            self._run(tensor)

        exchanges.guard(run, name, brought, exchanges.calls + 1)

    @abstractmethod
    def _run(self, tensor: torch.Tensor) -> None:
        """The exchanges."""


def own_group(world: World, groups: Sequence[Sequence[int]]) -> Any:
    """This rank's process group among these; every process makes all of them, in one order, as the backend demands.

    Args:
        world: all processes.
        groups: ranks, no rank in two of them; None for a rank in none.
    """
    timeout, backend = timedelta(seconds=world.patience.group_seconds), nccl.backend_for(world.device, world.group)
    handles = [nccl.new_group(world.device, timeout, backend, list(group), world.by_watchdog) for group in groups]
    return next((handle for handle, group in zip(handles, groups, strict=True) if world.rank in group), None)


class SubgroupTorus(_Subgroups):
    """The torus in sub-groups.

    Args:
        world: the processes; all make this object at the same time.
        torus: its shape.

    Raises:
        RecipeError: the shape does not fit the world.
    """

    name = Torus.name

    def __init__(self, world: World, torus: Torus) -> None:
        super().__init__(world)
        torus.check(world.size)
        self._columns = torus.columns
        if world.size > 1:
            rows = [sorted(row) for row in torus.grid(world.size).tolist()]  # groups number their ranks in order
            self._row = own_group(world, rows)
            self._column = own_group(world, list(zip(*rows, strict=True)))

    def _run(self, tensor: torch.Tensor) -> None:
        missing = -len(tensor) % self._columns  # the backend scatters equal pieces alone; zeros add nothing
        buffer = torch.cat([tensor, tensor.new_zeros(missing)]) if missing else tensor
        piece = buffer.new_empty(len(buffer) // self._columns)
        dist.reduce_scatter_tensor(piece, buffer, group=self._row)
        dist.all_reduce(piece, group=self._column)
        dist.all_gather_into_tensor(buffer, piece, group=self._row)
        if missing:
            tensor.copy_(buffer[: len(tensor)])


class SubgroupHierarchical(_Subgroups):
    """The hierarchical all-reduce in sub-groups.

    Args:
        world: the processes; all make this object at the same time.
        hierarchical: its groups.
    """

    name = Hierarchical.name

    def __init__(self, world: World, hierarchical: Hierarchical) -> None:
        super().__init__(world)
        groups = hierarchical.groups
        self._master = next(group[0] for group in groups if world.rank in group)
        if world.size > 1:
            self._group = own_group(world, groups)
            self._masters = own_group(world, [[group[0] for group in groups]])

    def _run(self, tensor: torch.Tensor) -> None:
        dist.reduce(tensor, self._master, group=self._group)  # leaves rubbish on the others, until the broadcast
        if self._world.rank == self._master:
            dist.all_reduce(tensor, group=self._masters)
        dist.broadcast(tensor, self._master, group=self._group)
