"""Ring: partial sums travel round the ring, then the sums do.

sum = all-gather(reduce-scatter(buffer)), both round one ring of p ranks

Steps: 2 (p - 1). Bytes per process: 2 b - 2 b // p, which is 2 (p - 1) / p b where p divides b. Every rank talks to two
others only, in large messages of equal size: the best use of bandwidth, and the most rounds.

Source: Patarasuk and Yuan 2009, "Bandwidth optimal all-reduce algorithms for clusters of workstations".
"""

from __future__ import annotations

from batchscale.comm.collectives.primitives import RingAllGather, RingReduceScatter
from batchscale.comm.collectives.schedule import GroupCollective, Groups, Stage
from batchscale.comm.collectives.traffic import Floats, Traffic, on_one_link


class Ring(GroupCollective):
    """The ring all-reduce, for every W."""

    name = "ring"

    @classmethod
    def traffic(cls, hosts: Floats, each: Floats) -> Traffic:
        size = hosts * each  # every round crosses from host to host, one device of each sending
        return on_one_link(hosts, 2 * (size - 1), 2 * (size - 1) / size)

    def within(self, groups: Groups) -> list[Stage]:
        return [
            [(0, RingReduceScatter(groups))],
            [(0, RingAllGather(groups))],
        ]
