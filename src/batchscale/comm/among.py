"""Sums among some of the processes, inside a forward or backward pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist

from batchscale.comm.collectives.direct import Direct
from batchscale.comm.collectives.point_to_point import PointToPoint
from batchscale.comm.collectives.subgroups import own_group
from batchscale.comm.world.messages import brought_by
from batchscale.comm.world.world import World

SumAmong = Callable[[torch.Tensor, str], None]
"""(tensor, what): tensor <- its sum over the processes of this one's set; what: in words, for errors."""


def sum_among(world: World, sets: Sequence[Sequence[int]]) -> SumAmong:
    """The sum among the processes of this one's set; all processes call this together.

    Args:
        world: all processes.
        sets: ranks, no rank in two of them.

    Returns:
        (contiguous tensor, words) -> None. Its calls block; the same order of calls on each process of a set.
    """
    ranks = next(list(ranks) for ranks in sets if world.rank in ranks)
    if world.device.type == "cuda":
        return _by_backend(world, sets)
    point_to_point = PointToPoint(world, Direct(), ranks)

    def add(tensor: torch.Tensor, what: str) -> None:
        point_to_point.all_reduce(tensor.view(-1), what)

    return add


def _by_backend(world: World, sets: Sequence[Sequence[int]]) -> SumAmong:
    """By NCCL in a group a set, which every process makes in one order; waited for in the order of the stream."""
    group, calls = own_group(world, sets), 0

    def add(tensor: torch.Tensor, what: str) -> None:
        nonlocal calls
        calls += 1
        world.exchanges.guard(lambda: dist.all_reduce(tensor, group=group), what, brought_by(tensor), calls)

    return add
