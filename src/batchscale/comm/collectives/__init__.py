"""All-reduce algorithms by name, each one file; what a recipe may call them, and how their shapes are chosen."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from batchscale.comm.collectives.binary_blocks import BinaryBlocks
from batchscale.comm.collectives.direct import Direct
from batchscale.comm.collectives.halving_doubling import HalvingDoubling
from batchscale.comm.collectives.hierarchical import Hierarchical
from batchscale.comm.collectives.ring import Ring
from batchscale.comm.collectives.schedule import Collective, GroupCollective, is_power_of_two
from batchscale.comm.collectives.three_phase import ThreePhase
from batchscale.comm.collectives.torus import Torus, nearest_to_square
from batchscale.errors import RecipeError

T = TypeVar("T")
_BETWEEN_SETTING = "execution.aggregation.between"


@dataclass(frozen=True)
class Layout:
    """What an algorithm is shaped by.

    Args:
        size: W, ranks.
        hosts: ranks of every host, or None where nothing is known of hosts.
        torus: X and Y, or None to choose them.
        between: the algorithm between hosts, or ``auto``.
    """

    size: int
    hosts: Sequence[Sequence[int]] | None = None
    torus: tuple[int, int] | None = None
    between: str = "auto"

    def groups(self) -> Sequence[Sequence[int]]:
        """The hosts; without them groups of k = sqrt(W / 2), where 4 (k - 1) + 2 (W / k - 1) steps are fewest."""
        if self.hosts is not None:
            return self.hosts
        each = max(1, round(math.sqrt(self.size / 2)))
        return [range(first, min(first + each, self.size)) for first in range(0, self.size, each)]


def _torus(layout: Layout) -> Torus:
    if layout.torus is not None:
        return Torus(*layout.torus)
    hosts = layout.hosts or ()
    sizes = {len(host) for host in hosts}
    if len(hosts) > 1 and len(sizes) == 1 and sizes != {1}:
        return Torus(sizes.pop(), len(hosts), np.array(hosts, np.int64).ravel())
    return Torus(*nearest_to_square(layout.size))


def _automatic(size: int) -> GroupCollective:
    return HalvingDoubling(_BETWEEN_SETTING) if is_power_of_two(size) else BinaryBlocks(_BETWEEN_SETTING)


BETWEEN: dict[str, Callable[[int], GroupCollective]] = {
    "auto": _automatic,
    "ring": lambda _: Ring(),
    "halving_doubling": lambda _: HalvingDoubling(_BETWEEN_SETTING),
    "binary_blocks": lambda _: BinaryBlocks(_BETWEEN_SETTING),
    "torus": lambda size: Torus(*nearest_to_square(size)),
}
"""What three_phase may use between hosts: name -> algorithm for so many hosts."""


def _three_phase(layout: Layout) -> ThreePhase:
    hosts = layout.groups()
    return ThreePhase(hosts, _known(BETWEEN, layout.between, _BETWEEN_SETTING)(len(hosts)))


COLLECTIVES: dict[str, Callable[[Layout], Collective]] = {
    "ring": lambda _: Ring(),
    "halving_doubling": lambda _: HalvingDoubling(),
    "binary_blocks": lambda _: BinaryBlocks(),
    "torus": _torus,
    "hierarchical": lambda layout: Hierarchical(layout.groups()),
    "three_phase": _three_phase,
    "direct": lambda _: Direct(),
}
"""Every all-reduce algorithm: name -> algorithm in a layout."""


def make(
    name: str,
    size: int,
    hosts: Sequence[Sequence[int]] | None = None,
    *,
    torus: tuple[int, int] | None = None,
    between: str = "auto",
) -> Collective:
    """The algorithm of this name, shaped for W ranks and checked.

    Args:
        name: a member of `COLLECTIVES`.
        size: W, ranks.
        hosts: ranks of every host; None where nothing is known of them.
        torus: X and Y; None chooses ranks a host x hosts where hosts are equal, else the shape nearest to a square.
        between: the algorithm between hosts, for three_phase; a member of `BETWEEN`.

    Raises:
        RecipeError: an unknown name, or one that is not made for so many ranks or this shape.
    """
    collective = _known(COLLECTIVES, name, "execution.aggregation.algorithm")(Layout(size, hosts, torus, between))
    collective.check(size)
    return collective


def _known(table: dict[str, T], name: str, setting: str) -> T:
    if name not in table:
        near = difflib.get_close_matches(name, table, 1, 0.4)
        hint = f"did you mean {near[0]}? " if near else ""
        raise RecipeError(f"{setting}={name}: unknown; {hint}known are {', '.join(table)}")
    return table[name]


__all__ = ["BETWEEN", "COLLECTIVES", "Layout", "make"]
