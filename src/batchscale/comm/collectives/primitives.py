"""The parts that all-reduce algorithms are made of, each over G groups of S ranks at once.

Pieces are numbered 0 .. S - 1 along a group's cuts. After a reduce-scatter the rank in place i of its group holds
the sum of piece i; an all-gather begins there and ends with everything everywhere. So the parts fit together.

| part | rounds | elements that the rank in place i sends, of a span of b |
|---|---|---|
| RingReduceScatter | S - 1 | b - piece i |
| RingAllGather | S - 1 | b - piece i + 1 |
| Halving | log2 S | b - piece i |
| Doubling | log2 S | b / S + 2 b / S + ... + b / 2 |
| DirectReduceScatter | 1 | b - piece i |
| DirectAllGather | 1 | (S - 1) piece i |
| GatherInTurn | S - 1 | piece i, but nothing from place 0 |
| ScatterInTurn | S - 1 | place 0: b - piece 0 |
| BetweenBlocks | 1 | its own piece |

Sources: Patarasuk and Yuan 2009 (ring); Thakur, Rabenseifner, Gropp 2005 (halving, doubling); Rabenseifner and Träff
2004 (between blocks).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from batchscale.comm.collectives.schedule import GroupRounds, Groups, Ints, Sent, Step, exchange


class _OverPieces(GroupRounds):
    """Rounds in which a group's span is cut into pieces, one a rank.

    Args:
        groups: G groups of S ranks.
    """

    def __init__(self, groups: Groups) -> None:
        self.ranks, self.size = groups.ranks, groups.size
        self.rounds = self.size - 1
        cuts = groups.cuts(self.size)
        self.begin, self.end = cuts[:, :-1], cuts[:, 1:]
        self.pieces = self.end - self.begin

    @property
    def _span(self) -> Ints:
        return self.end[:, -1:] - self.begin[:, :1]

    @property
    def _full(self) -> Ints:
        return (self.pieces > 0).astype(np.int64)


class RingReduceScatter(_OverPieces):
    """Partial sums travel round the ring; piece i ends in place i."""

    add = True

    def steps(self) -> Iterator[Step]:
        return _round_the_ring(self, first=-1)  # so that the piece which ends in place i is piece i

    def sent(self) -> Sent:
        return Sent(self.ranks, self._span - self.pieces, self._full.sum(axis=1, keepdims=True) - self._full)


class RingAllGather(_OverPieces):
    """Whole pieces travel round the ring, every rank beginning with its own."""

    add = False

    def steps(self) -> Iterator[Step]:
        return _round_the_ring(self, first=0)

    def sent(self) -> Sent:
        never = np.roll(self.pieces, -1, axis=1), np.roll(self._full, -1, axis=1)  # the next place's own piece
        return Sent(self.ranks, self._span - never[0], self._full.sum(axis=1, keepdims=True) - never[1])


def _round_the_ring(part: RingReduceScatter | RingAllGather, first: int) -> Iterator[Step]:
    """Place i sends piece i + first to place i + 1, in the next round the piece before that one, and so on."""
    following = np.roll(part.ranks, -1, axis=1)
    begin, end = np.tile(part.begin, 2), np.tile(part.end, 2)  # so that a shift by pieces is a view
    for number in range(part.rounds):
        shift = (first - number) % part.size
        window = slice(shift, shift + part.size)
        yield exchange(part.ranks, following, begin[:, window], end[:, window], part.add)


class _OverHalves(GroupRounds):
    """Rounds in which partners at a distance of a power of two exchange blocks of pieces.

    Args:
        groups: G groups of S ranks, S a power of two.
    """

    def __init__(self, groups: Groups) -> None:
        self.ranks, self.size = groups.ranks, groups.size
        self.rounds = self.size.bit_length() - 1
        self.cuts = groups.cuts(self.size)
        self.places = np.arange(self.size)

    def _block(self, places: Ints, distance: int) -> tuple[Ints, Ints]:
        """Begin and end of the aligned block of `distance` pieces in which each place lies (G, S)."""
        first = places // distance * distance
        return self.cuts[:, first], self.cuts[:, first + distance]

    def _sent(self, blocks: list[tuple[Ints, Ints]]) -> Sent:
        elements = np.zeros_like(self.ranks) + sum(end - begin for begin, end in blocks)
        messages = np.zeros_like(self.ranks) + sum((end > begin).astype(np.int64) for begin, end in blocks)
        return Sent(self.ranks, elements, messages)


class Halving(_OverHalves):
    """Recursive halving: a rank gives the half of its block that it will not own to a partner S / 2, S / 4, .. away."""

    add = True

    def steps(self) -> Iterator[Step]:
        for number in reversed(range(self.rounds)):  # the farthest first: half of what is left goes each time
            partner = self.places ^ (1 << number)
            yield exchange(self.ranks, self.ranks[:, partner], *self._block(partner, 1 << number), self.add)

    def sent(self) -> Sent:
        return self._sent([self._block(self.places ^ (1 << n), 1 << n) for n in range(self.rounds)])


class Doubling(_OverHalves):
    """Recursive doubling: a rank gives all that it has gathered to a partner 1, 2, 4, .. away."""

    add = False

    def steps(self) -> Iterator[Step]:
        for number in range(self.rounds):  # the nearest first, the way back: blocks stay aligned as they grow
            partner = self.places ^ (1 << number)
            yield exchange(self.ranks, self.ranks[:, partner], *self._block(self.places, 1 << number), self.add)

    def sent(self) -> Sent:
        return self._sent([self._block(self.places, 1 << n) for n in range(self.rounds)])


class _Direct(GroupRounds):
    """A round in which the owners of pieces exchange with everyone in their group.

    Args:
        groups: G groups of S ranks.
        owners: how many pieces, owned by the first ranks of a group; at most S.
    """

    def __init__(self, groups: Groups, owners: int) -> None:
        self.ranks, self.size, self.owners = groups.ranks, groups.size, owners
        self.rounds = min(1, self.size - 1)  # none in a group of one
        cuts = groups.cuts(owners)
        self.begin, self.end = cuts[:, :-1], cuts[:, 1:]
        self.pieces = self.end - self.begin
        # For every owner the others in the order of places: in it they are added, whichever comes first.
        owner, other = np.divmod(np.arange(owners * self.size), self.size)
        self.owner, self.other = owner[owner != other], other[owner != other]

    def _owned(self, values: Ints) -> Ints:
        """(G, owners) widened to (G, S): ranks that own nothing get 0."""
        wide = np.zeros_like(self.ranks)
        wide[:, : self.owners] = values
        return wide


class DirectReduceScatter(_Direct):
    """Everyone sends piece i to its owner, who adds them in the order of places."""

    add = True

    def steps(self) -> Iterator[Step]:
        if self.rounds:
            source, target = self.ranks[:, self.other], self.ranks[:, self.owner]
            yield exchange(source, target, self.begin[:, self.owner], self.end[:, self.owner], self.add)

    def sent(self) -> Sent:
        full = (self.pieces > 0).astype(np.int64)
        elements = self.pieces.sum(axis=1, keepdims=True) - self._owned(self.pieces)
        return Sent(self.ranks, elements, full.sum(axis=1, keepdims=True) - self._owned(full))


class DirectAllGather(_Direct):
    """The owner of a piece sends it to everyone."""

    add = False

    def steps(self) -> Iterator[Step]:
        if self.rounds:
            source, target = self.ranks[:, self.owner], self.ranks[:, self.other]
            yield exchange(source, target, self.begin[:, self.owner], self.end[:, self.owner], self.add)

    def sent(self) -> Sent:
        receivers = self.size - 1
        full = (self.pieces > 0).astype(np.int64)
        return Sent(self.ranks, receivers * self._owned(self.pieces), receivers * self._owned(full))


class GatherInTurn(_OverPieces):
    """The first of a group, its master, gets the pieces of the others, one a round."""

    add = False

    def steps(self) -> Iterator[Step]:
        for i in range(1, self.size):
            yield exchange(self.ranks[:, i], self.ranks[:, 0], self.begin[:, i], self.end[:, i], self.add)

    def sent(self) -> Sent:
        return Sent(self.ranks[:, 1:], self.pieces[:, 1:], self._full[:, 1:])


class ScatterInTurn(_OverPieces):
    """The first of a group, its master, gives the others their pieces, one a round."""

    add = False

    def steps(self) -> Iterator[Step]:
        for i in range(1, self.size):
            yield exchange(self.ranks[:, 0], self.ranks[:, i], self.begin[:, i], self.end[:, i], self.add)

    def sent(self) -> Sent:
        return Sent(self.ranks[:, 0], self.pieces[:, 1:].sum(axis=1), self._full[:, 1:].sum(axis=1))


class BetweenBlocks(GroupRounds):
    """One round between a block of s ranks and a block of S, s dividing S: the pieces of the larger block travel.

    Args:
        small: G groups of s ranks.
        large: G groups of S ranks, with the same spans.
        add: True: the small block gives each rank of the large one its piece, to be added;
            False: the large block gives the pieces back.
    """

    rounds = 1

    def __init__(self, small: Groups, large: Groups, add: bool) -> None:
        self.add = add
        cuts = large.cuts(large.size)
        self.begin, self.end = cuts[:, :-1], cuts[:, 1:]
        # s divides S, so the smaller block's cuts are among the larger's: a rank there holds S / s whole pieces.
        holder = np.arange(large.size) // (large.size // small.size)
        self.small, self.large = small.ranks[:, holder], large.ranks

    def steps(self) -> Iterator[Step]:
        source, target = (self.small, self.large) if self.add else (self.large, self.small)
        yield exchange(source, target, self.begin, self.end, self.add)

    def sent(self) -> Sent:
        pieces = self.end - self.begin
        return Sent(self.small if self.add else self.large, pieces, (pieces > 0).astype(np.int64))
