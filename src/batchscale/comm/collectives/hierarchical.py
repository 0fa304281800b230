"""Hierarchical: every group reduces to its master, the masters all-reduce round a ring, every master broadcasts.

reduce = ring reduce-scatter, then the pieces to the master one by one; broadcast = the same way back

Steps: 4 (k - 1) + 2 (p / k - 1) for p / k groups of k; k is the largest group where they are uneven. Bytes per process:
a master sends 2 (1 - k / p) b between groups and about 2 (k - 1) / k b inside, the others about 2 b inside: more than
the ring's, in fewer rounds, and only masters talk between groups.

Source: Jia et al. 2018, "Highly scalable deep learning training system with mixed-precision", section 3.3.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from batchscale.comm.collectives.primitives import GatherInTurn, RingAllGather, RingReduceScatter, ScatterInTurn
from batchscale.comm.collectives.ring import Ring
from batchscale.comm.collectives.schedule import Collective, Groups, Layout, Stage, by_size
from batchscale.comm.collectives.traffic import Floats, Traffic


class Hierarchical(Collective):
    """The hierarchical all-reduce, for every W.

    Args:
        groups: ranks of every group, the master first; each of 0 .. W - 1 once.
    """

    name = "hierarchical"

    @classmethod
    def traffic(cls, hosts: Floats, each: Floats) -> Traffic:
        return Traffic(4 * (each - 1), 4 * (each - 1) / each, 2 * (hosts - 1), 2 * (hosts - 1) / hosts)

    def __init__(self, groups: Sequence[Sequence[int]]) -> None:
        self.groups = groups

    @classmethod
    def in_layout(cls, layout: Layout) -> Hierarchical:
        return cls(layout.groups())

    def stages(self, size: int, length: int) -> list[Stage]:
        inside = by_size(self.groups, length)
        masters = Groups(
            np.array([[group[0] for group in self.groups]], np.int64), np.zeros(1, np.int64), np.array([length])
        )

        def everywhere(rounds: type[RingReduceScatter | GatherInTurn | ScatterInTurn | RingAllGather]) -> Stage:
            return [(0, rounds(groups)) for groups in inside]

        return [
            everywhere(RingReduceScatter),
            everywhere(GatherInTurn),
            *Ring().within(masters),
            everywhere(ScatterInTurn),
            everywhere(RingAllGather),
        ]
