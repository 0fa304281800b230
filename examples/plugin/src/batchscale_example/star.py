"""An all-reduce as a star: every rank sends its buffer to rank 0, which adds them in order and sends the sum back.

Steps: 2. Bytes per process: b, of rank 0 (p - 1) b: the fewest rounds, and the worst use of bandwidth.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from batchscale.comm.collectives.schedule import Collective, GroupRounds, Sent, Stage, Step, exchange


class _OneRound(GroupRounds):
    """The whole buffer between rank 0 and every other rank.

    Args:
        size, length: ranks, and elements of the buffer.
        add: to rank 0, which adds; else from rank 0, and overwriting.
    """

    rounds = 1

    def __init__(self, size: int, length: int, add: bool) -> None:
        self.size, self.length, self.add = size, length, add

    def steps(self) -> Iterator[Step]:
        others = np.arange(1, self.size, dtype=np.int64)
        centre = np.zeros_like(others)
        source, target = (others, centre) if self.add else (centre, others)
        yield exchange(source, target, centre, np.full_like(others, self.length), self.add)

    def sent(self) -> Sent:
        senders, messages = (np.arange(1, self.size), 1) if self.add else (np.zeros(1, np.int64), self.size - 1)
        return Sent(senders, np.full_like(senders, messages * self.length), np.full_like(senders, messages))


class Star(Collective):
    """The star, for every W."""

    name = "example_star"

    def stages(self, size: int, length: int) -> list[Stage]:
        return [[(0, _OneRound(size, length, add=True))], [(0, _OneRound(size, length, add=False))]]
