"""Halving/doubling: partners exchange halves of what they still own, then everything comes back the same way.

sum = recursive doubling(recursive halving(buffer)), partners p / 2, p / 4, .., 1 and then 1, .., p / 2 places away

Steps: 2 log2 p, for p a power of two. Bytes per process: b + the sum over j = 1 .. log2 p - 1 of ceil(2^j b / p), which
is 2 (p - 1) / p b where p divides b: as few bytes as the ring, in far fewer rounds.

Source: Thakur, Rabenseifner, Gropp 2005, "Optimization of collective communication operations in MPICH", section 4.5;
Goyal et al. 2017, section 4.
"""

from __future__ import annotations

import numpy as np

from batchscale.comm.collectives.primitives import Doubling, Halving
from batchscale.comm.collectives.schedule import GroupCollective, Groups, Layout, Stage, is_power_of_two
from batchscale.comm.collectives.traffic import Floats, Traffic, is_whole_power
from batchscale.errors import RecipeError


class HalvingDoubling(GroupCollective):
    """The halving/doubling all-reduce, for W a power of two.

    Args:
        setting: the recipe's entry that chose it, for errors.
    """

    name = "halving_doubling"

    def __init__(self, setting: str = "execution.aggregation.algorithm") -> None:
        self._setting = setting

    @classmethod
    def in_layout(cls, layout: Layout) -> HalvingDoubling:
        return cls(layout.setting)

    @classmethod
    def traffic(cls, hosts: Floats, each: Floats) -> Traffic:
        # The far partners, on other hosts, come first, and all devices of a host have one; near ones share the rest.
        return Traffic(
            2 * np.log2(each), 2 * (1 - 1 / each) / hosts, 2 * np.log2(hosts), 2 * each * (1 - 1 / hosts)
        ).where(is_whole_power(hosts * each))

    def check(self, size: int) -> None:
        if not is_power_of_two(size):
            raise RecipeError(
                f"{self._setting}={self.name}: needs a power of two to sum over, not {size}; "
                f"use {self._setting}=binary_blocks"
            )

    def within(self, groups: Groups) -> list[Stage]:
        return [
            [(0, Halving(groups))],
            [(0, Doubling(groups))],
        ]
