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

from batchscale.comm.collectives.primitives import BetweenBlocks, Doubling, Halving
from batchscale.comm.collectives.schedule import GroupCollective, Groups, Layout, Stage, is_power_of_two
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
