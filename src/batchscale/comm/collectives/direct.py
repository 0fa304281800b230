"""Direct: everyone sends piece i to rank i, which adds them up in the order of ranks and sends the sum to all.

sum = all-gather(reduce-scatter(buffer)), each in one round

Steps: 2. Bytes per process: b - b // p for the first round and (p - 1) pieces for the second, which is 2 (p - 1) / p b
where p divides b. Messages: 2 (p - 1) a rank at once: made for ranks that share memory, where this is its shape.

Source: Thakur, Rabenseifner, Gropp 2005, section 4.4 (pairwise exchange), all at once.
"""

from __future__ import annotations

import numpy as np

from batchscale.comm.collectives.primitives import DirectAllGather, DirectReduceScatter
from batchscale.comm.collectives.schedule import GroupCollective, Groups, Stage
from batchscale.comm.collectives.traffic import Floats, Traffic, on_one_link


class Direct(GroupCollective):
    """The direct all-reduce, for every W."""

    name = "direct"

    @classmethod
    def traffic(cls, hosts: Floats, each: Floats) -> Traffic:
        # Between hosts a round of p - 1 messages at once is no round any more: only shared memory has them for nothing.
        return on_one_link(hosts, np.where(each > 1, 2.0, 0.0), 2 * (each - 1) / each).where(hosts == 1)

    def within(self, groups: Groups) -> list[Stage]:
        return [
            [(0, DirectReduceScatter(groups, groups.size))],
            [(0, DirectAllGather(groups, groups.size))],
        ]
