"""Three phases: sum inside every host, between hosts, and back: every lane sums its piece between hosts.

sum = all-gather_host(all-reduce_lanes(reduce-scatter_host(buffer))), lanes = ranks of the smallest host

Every host cuts the buffer into as many pieces as there are lanes; its first ranks own them. Inside a host everyone
exchanges directly (as through shared memory); between hosts a lane is any all-reduce over one rank a host.

Steps: 2 + those of the all-reduce between hosts. Bytes per process, of h equal hosts of s ranks with the ring between:
2 (s - 1) / s b inside and 2 (h - 1) / (h s) b between hosts.

Source: Goyal et al. 2017, section 4.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from batchscale.comm.collectives.primitives import DirectAllGather, DirectReduceScatter
from batchscale.comm.collectives.schedule import (
    Collective,
    GroupCollective,
    Groups,
    Layout,
    Stage,
    by_size,
    is_power_of_two,
)
from batchscale.comm.collectives.traffic import Floats, Traffic
from batchscale.members import BETWEEN


def between_hosts(name: str, hosts: int) -> GroupCollective:
    """The all-reduce between so many hosts.

    Args:
        name: of it; auto takes halving/doubling for a power of two, else binary blocks.
        hosts: how many.

    Raises:
        RecipeError: an unknown name.
    """
    setting = "execution.aggregation.between"
    if name == "auto":
        name = "halving_doubling" if is_power_of_two(hosts) else "binary_blocks"
    collective: GroupCollective = BETWEEN.named(name, setting, ("auto",)).in_layout(Layout(hosts, setting=setting))
    return collective


class ThreePhase(Collective):
    """The all-reduce in three phases, for every W.

    Args:
        hosts: ranks of every host; each of 0 .. W - 1 once.
        between: the all-reduce between hosts.
    """

    name = "three_phase"

    def __init__(self, hosts: Sequence[Sequence[int]], between: GroupCollective) -> None:
        self._hosts, self._between = hosts, between
        self.lanes = min(len(host) for host in hosts)

    @classmethod
    def traffic(cls, hosts: Floats, each: Floats) -> Traffic:
        # With auto between hosts. All lanes of a host share its link, so it carries what one rank a host would send.
        lanes = [BETWEEN[name].traffic(hosts, np.ones_like(each)) for name in ("halving_doubling", "binary_blocks")]
        power = np.isfinite(lanes[0].inside_rounds)
        return Traffic(
            np.where(each > 1, 2.0, 0.0),
            2 * (each - 1) / each,
            np.where(power, lanes[0].between_rounds, lanes[1].between_rounds),
            np.where(power, lanes[0].between_share, lanes[1].between_share),
        )

    @classmethod
    def in_layout(cls, layout: Layout) -> ThreePhase:
        hosts = layout.groups()
        return cls(hosts, between_hosts(layout.between, len(hosts)))

    def check(self, size: int) -> None:
        if len(self._hosts) > 1:
            self._between.check(len(self._hosts))

    def stages(self, size: int, length: int) -> list[Stage]:
        inside = by_size(self._hosts, length)
        cuts = Groups.world(size, length).cuts(self.lanes)[0]
        # Lane i, the i-th rank of every host, sums piece i: the one that these ranks own inside.
        lanes = Groups(np.array([host[: self.lanes] for host in self._hosts], np.int64).T, cuts[:-1], cuts[1:])
        return [
            [(0, DirectReduceScatter(hosts, self.lanes)) for hosts in inside],
            *self._between.within(lanes),
            [(0, DirectAllGather(hosts, self.lanes)) for hosts in inside],
        ]
