"""Binary blocks: halving/doubling inside blocks of powers of two, partial sums handed from block to block.

p = 2^a + 2^b + .. with a > b > ..: one block for every bit of p. Every block reduce-scatters by halving; the smallest
then hands its sums to the next larger, until the largest block holds the sum; it comes back the same way, and every
block gathers by doubling. Pieces are those of the largest block, so a rank of a smaller one holds several.

Steps: 2 floor(log2 p) + 2, for any number of blocks: a smaller block has ended its halving, and has been given the
sums of those below it, when the next larger ends its own, so that all but one exchange each way hides behind the
largest block's rounds. For p a power of two there is one block: that is halving/doubling itself.
Bytes per process: at most those of halving/doubling in the largest block plus its piece, and for a rank of a smaller
block of s ranks its b / s each way.

Source: Rabenseifner and Träff 2004, "More efficient reduction algorithms for non-power-of-two number of processors";
Goyal et al. 2017, section 4.
"""

from __future__ import annotations

import itertools

import numpy as np

from batchscale.comm.collectives.primitives import BetweenBlocks, Doubling, Halving
from batchscale.comm.collectives.schedule import GroupCollective, Groups, Layout, Stage, is_power_of_two
from batchscale.comm.collectives.traffic import Floats, Traffic, is_whole_power, on_one_link
from batchscale.errors import RecipeError


class BinaryBlocks(GroupCollective):
    """The binary-blocks all-reduce, for W no power of two.

    Args:
        setting: the recipe's entry that chose it, for errors.
    """

    name = "binary_blocks"

    def __init__(self, setting: str = "execution.aggregation.algorithm") -> None:
        self._setting = setting

    @classmethod
    def traffic(cls, hosts: Floats, each: Floats) -> Traffic:
        # Not where hosts have several devices: there three_phase has these blocks between hosts.
        size = hosts * each
        made = ~is_whole_power(size) & ((hosts == 1) | (each == 1))
        return on_one_link(hosts, 2 * np.floor(np.log2(size)) + 2, _busiest_share(np.where(made, size, 3))).where(made)

    @classmethod
    def in_layout(cls, layout: Layout) -> BinaryBlocks:
        return cls(layout.setting)

    def check(self, size: int) -> None:
        if is_power_of_two(size):
            raise RecipeError(
                f"{self._setting}={self.name}: {size} is a power of two, one block, where it equals halving_doubling; "
                f"use {self._setting}=halving_doubling"
            )

    def within(self, groups: Groups) -> list[Stage]:
        blocks = _blocks(groups)
        halvings = [Halving(block) for block in blocks]
        larger_and_smaller = list(itertools.pairwise(blocks))
        # Sums go up as the larger block ends its halving: the smaller one, of fewer rounds, then has those below it.
        up = [(halvings[i].rounds, BetweenBlocks(s, b, add=True)) for i, (b, s) in enumerate(larger_and_smaller)]
        down = [(i, BetweenBlocks(s, b, add=False)) for i, (b, s) in enumerate(larger_and_smaller)]
        return [
            [*((0, halving) for halving in halvings), *up],
            [*down, *((i + 1, Doubling(block)) for i, block in enumerate(blocks))],
        ]


def _blocks(groups: Groups) -> list[Groups]:
    """The blocks of every group, the largest first, all over the group's whole span."""
    first, blocks = 0, []
    for bit in reversed(range(groups.size.bit_length())):
        if groups.size >> bit & 1:
            blocks.append(Groups(groups.ranks[:, first : first + (1 << bit)], groups.begin, groups.end))
            first += 1 << bit
    return blocks


def _busiest_share(sizes: Floats) -> Floats:
    """Of the buffer, what the busiest rank sends or gets, summed over the rounds; of many sizes at once (n).

    Of blocks P_0 > P_1 > .. > P_m, m > 0, with q_i = i + log2 P_i, which falls:

        there   1 - 1 / P_0 + 1 / P_1 + sum over 0 < i < m of 1 / P_(i + 1) - 1 / (2 P_i)
        back    sum over i > 0 of 1 / P_i, + 1 / P_(m - 1) + 1 - 1 / P_m + sum over i < m of 1 - 2^(q_(i + 1) - q_i)

    On the way there the round in which block i has ended gets the sums of the next one, of 1 / P_(i + 1) each, in the
    place of what others halve; on the way back the last block that still doubles has the largest pieces.
    """
    numbers = sizes.astype(np.int64)
    last, before_last = np.full_like(sizes, np.inf), np.full_like(sizes, np.inf)
    place, log_last, share = np.zeros_like(sizes), np.zeros_like(sizes), np.zeros_like(sizes)
    for bit in reversed(range(int(sizes.max()).bit_length())):
        block, here = 2.0**bit, (numbers >> bit & 1).astype(bool)
        first, later = here & (place == 0), here & (place > 0)
        share += np.where(first, 2 - 1 / block, 0.0)
        fewer = np.where(later, 1 - 2.0 ** (1 + bit - log_last), 0.0) - np.where(later & (place > 1), 0.5 / last, 0.0)
        share += np.where(later, 2 / block, 0.0) + fewer
        before_last, last = np.where(here, last, before_last), np.where(here, block, last)
        log_last, place = np.where(here, bit, log_last), place + here
    return share + 1 / before_last - 1 / last
