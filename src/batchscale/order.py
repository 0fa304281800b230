"""Which example stands at each place of an epoch: one keyed shuffle an epoch, drawn anew where a branch asks for it.

    o(e, p) = shuffle_(s, e)(p)                                         of a run by itself, seed s
    o(e, p) = o_trunk(e, p)                                             of a branch with branch.seed 0
    o(e, p) = o_trunk(e, P + shuffle_(s', e, rest)(p - P)),  e = E      else, in the epoch E that it begins in
    o(e, p) = shuffle_(s', e)(p),                            e > E

E and P are the epoch and the place where the branch begins: what the trunk has shown of the epoch E stays shown, so no
example comes twice in an epoch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from batchscale.randomness import key, shuffled

Indices = npt.NDArray[np.int64]
_SHUFFLE = 0  # its stream; those of augmentation are in data/images.py
_REST = 5  # stream: the order of what an epoch has not yet shown where a branch begins
_BRANCH = 203  # stream: the seed of a branch


@dataclass(frozen=True)
class StreamOrder:
    """The order of a run's stream.

    Attributes:
        seed: s, or s' of a branch that draws anew; augmentation, dropout and noise are keyed by it too.
        examples: N.
        trunk: the order up to the place where this one begins; None of a run by itself.
        epoch, place: E and P, where it begins.
    """

    seed: int
    examples: int
    trunk: StreamOrder | None = None
    epoch: int = 0
    place: int = 0

    def branch(self, epoch: int, place: int, branch_seed: int) -> StreamOrder:
        """The order of a branch that begins here.

        Args:
            epoch, place: E and P.
            branch_seed: 0 goes on in this order.
        """
        if not branch_seed:
            return self
        return StreamOrder(key(self.seed, branch_seed, epoch, place, _BRANCH) >> 1, self.examples, self, epoch, place)

    def at_places(self, epoch: int, places: Indices) -> Indices:
        """The examples at these places of an epoch, the shape of places."""
        if self.trunk is None or epoch > self.epoch or (epoch == self.epoch and not self.place):
            return shuffled(key(self.seed, epoch, _SHUFFLE), places, self.examples)
        if epoch < self.epoch:
            return self.trunk.at_places(epoch, places)
        rest = self.examples - self.place
        unseen = places >= self.place
        moved = places.copy()
        anew = shuffled(key(self.seed, epoch, _REST), places[unseen] - self.place, rest)
        moved[unseen] = self.place + anew
        return self.trunk.at_places(epoch, np.asarray(moved))
