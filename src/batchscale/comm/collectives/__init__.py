"""All-reduce algorithms by name, each one file; how those that a recipe names are shaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from batchscale.comm.collectives.schedule import Collective, GroupCollective, Layout
from batchscale.members import ALL_REDUCES
from batchscale.members import BETWEEN as BETWEEN_HOSTS
from batchscale.words import counted

COLLECTIVES: Mapping[str, type[Collective]] = ALL_REDUCES
"""Every all-reduce algorithm."""
BETWEEN: Mapping[str, type[GroupCollective]] = BETWEEN_HOSTS
"""What three_phase may use between hosts, beside ``auto``."""


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
        between: the algorithm between hosts, for three_phase; a member of `BETWEEN`, or auto.

    Raises:
        UsageError: an unknown name, a plugin's that breaks, or one that is not made for so many ranks or this shape.
    """
    setting = "execution.aggregation.algorithm"
    kind: type[Collective] = ALL_REDUCES.named(name, setting)
    with ALL_REDUCES.building(name, setting, counted(size, "process")):
        collective = kind.in_layout(Layout(size, hosts, torus, between))
        collective.check(size)
    return collective


__all__ = ["BETWEEN", "COLLECTIVES", "Layout", "make"]
