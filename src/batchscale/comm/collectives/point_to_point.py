"""Schedules run by real processes: every exchange of a round is an isend on one rank and an irecv on another.

With a *wire* of 16 bits every slice is sent in that type and added in the tensor's own, so a partial sum is rounded at
every hop. A slice that overwrites is rounded on its sender, too: who has summed an element holds the same bits as those
that get it.

A rank cuts the schedule of the world down to its own part, once a length. Slices that overwrite are received in place,
slices that are added go through a scratch buffer and are added in the order of the schedule; an element is summed on
one rank and copied from there, so its bits are the same on all.

Gloo ends the process where a message is longer than its receive, and takes a shorter one, or one of another type,
without a word. So every message carries a tag made of the call, the length and the type: collectives that do not fit
never meet, both sides time out, and what each brought is told (`comm/world/diagnosis.py`), at no cost to the fast path.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.distributed as dist

from batchscale.comm.collectives.schedule import Collective, Step
from batchscale.comm.world.messages import brought_by, tag_of
from batchscale.comm.world.world import World


@dataclass(frozen=True)
class _Round:
    """One rank's part of a round: (peer, begin, end) of what it sends and receives."""

    sends: list[tuple[int, int, int]]
    receives: list[tuple[int, int, int]]
    add: bool


class PointToPoint:
    """All-reduces by one algorithm, between CPU tensors.

    One thread at a time may use an object. Two objects may be used at once where `what` differs.

    Args:
        world: the processes.
        collective: the algorithm.
        ranks: the world's ranks that take part, in the order of the algorithm's; None for all.

    Raises:
        RecipeError: the algorithm is not made for so many ranks.
    """

    def __init__(self, world: World, collective: Collective, ranks: Sequence[int] | None = None) -> None:
        self._ranks = range(world.size) if ranks is None else ranks
        collective.check(len(self._ranks))
        self._world, self._collective = world, collective
        self._parts: dict[int, list[_Round]] = {}
        self._scratch = torch.empty(0, dtype=torch.uint8)
        self._calls = 0

    def all_reduce(self, tensor: torch.Tensor, what: str = "all-reduce", wire: torch.dtype | None = None) -> None:
        """tensor <- sum over all processes of tensor, the same bits on each.

        Args:
            tensor: (length,), contiguous, on the CPU.
            what: the exchange in words, for errors.
            wire: type that slices are sent in; None for the tensor's own.

        Raises:
            ProcessError: a rank died, hangs, or brought another length or type; names it, within the world's
                time-out and a few seconds.
        """
        if len(self._ranks) == 1 or not len(tensor):
            return
        self._calls += 1
        name, brought = f"{what} by {self._collective.name}", brought_by(tensor, wire)
        tag = tag_of(name, brought, self._calls)
        self._world.exchanges.guard(lambda: self._run(tensor, tag, wire), name, brought, self._calls)

    def _run(self, tensor: torch.Tensor, tag: int, wire: torch.dtype | None) -> None:
        for part in self._part(len(tensor)):
            outgoing = _outgoing(tensor, part, wire)
            slices = [tensor[begin:end] for _, begin, end in part.receives]
            apart = part.add or wire is not None
            places = self._scratch_like(slices, wire or tensor.dtype) if apart else slices
            # Nothing is waited for before all of the round is under way: round a ring each would wait for the next.
            received = [
                dist.irecv(p, peer, self._world.group, tag)
                for p, (peer, _, _) in zip(places, part.receives, strict=True)
            ]
            sent = [dist.isend(outgoing[begin, end], peer, self._world.group, tag) for peer, begin, end in part.sends]
            for work, piece, place in zip(received, slices, places, strict=True):
                cast(dist.Work, work).wait()  # None only outside the group
                if part.add:
                    piece.add_(place)  # in the order of the schedule, whichever came first: the bits hang on it
                elif apart:
                    piece.copy_(place)
            for work in sent:  # the next round may write over what is still being sent
                cast(dist.Work, work).wait()

    def _part(self, length: int) -> list[_Round]:
        """This rank's rounds of an all-reduce of so many elements."""
        if length not in self._parts:
            steps = self._collective.steps(len(self._ranks), length)
            place = self._ranks.index(self._world.rank)
            rounds = (_part_of(step, place, self._ranks) for step in steps)
            self._parts[length] = [part for part in rounds if part.sends or part.receives]
        return self._parts[length]

    def _scratch_like(self, slices: list[torch.Tensor], dtype: torch.dtype) -> list[torch.Tensor]:
        lengths = [len(piece) for piece in slices]
        needed_bytes = sum(lengths) * dtype.itemsize
        if self._scratch.numel() < needed_bytes:
            self._scratch = torch.empty(needed_bytes, dtype=torch.uint8)
        return list(torch.split_with_sizes(self._scratch[:needed_bytes].view(dtype), lengths))


def _outgoing(tensor: torch.Tensor, part: _Round, wire: torch.dtype | None) -> dict[tuple[int, int], torch.Tensor]:
    """What a rank sends in a round, by begin and end; what overwrites is rounded in its own tensor, too."""
    slices = {(begin, end): tensor[begin:end] for _, begin, end in part.sends}
    if wire is None:
        return slices
    narrow = {place: piece.to(wire) for place, piece in slices.items()}
    if not part.add:
        for place, piece in slices.items():
            piece.copy_(narrow[place])
    return narrow


def _part_of(step: Step, place: int, ranks: Sequence[int]) -> _Round:
    def pick(this_end: str, peer_end: str) -> list[tuple[int, int, int]]:
        chosen = getattr(step, this_end) == place
        columns = (getattr(step, peer_end)[chosen], step.begin[chosen], step.end[chosen])
        return [(ranks[int(peer)], int(begin), int(end)) for peer, begin, end in zip(*columns, strict=True)]

    return _Round(pick("source", "target"), pick("target", "source"), step.add)
