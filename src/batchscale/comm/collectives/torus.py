"""Torus: ranks in Y rows of X; reduce-scatter along rows, all-reduce along columns, all-gather along rows.

sum = all-gather_rows(all-reduce_columns(reduce-scatter_rows(buffer))), every part a ring

Steps: 2 (X - 1) + 2 (Y - 1), p = X Y. Bytes per process: 2 (X - 1) / X b + 2 (Y - 1) / (X Y) b = 2 (p - 1) / p b: the
bytes of the ring in about 4 sqrt(p) rounds, and a column carries only 1 / X of the bytes.

Source: Mikami et al. 2018, "Massively distributed SGD: ImageNet/ResNet-50 training in a flash", section 2.2.
"""

from __future__ import annotations

import math

import numpy as np

from batchscale.comm.collectives.primitives import RingAllGather, RingReduceScatter
from batchscale.comm.collectives.ring import Ring
from batchscale.comm.collectives.schedule import GroupCollective, Groups, Ints, Layout, Stage
from batchscale.comm.collectives.traffic import Floats, Traffic, on_one_link
from batchscale.errors import RecipeError


class Torus(GroupCollective):
    """The torus all-reduce, for every W = X Y (with X = 1 or Y = 1 it is the ring).

    Args:
        columns: X, ranks a row.
        rows: Y, ranks a column.
        order: ranks row by row; the default is 0 .. W - 1.
    """

    name = "torus"

    def __init__(self, columns: int, rows: int, order: Ints | None = None) -> None:
        self.columns, self.rows, self._order = columns, rows, order

    @classmethod
    def traffic(cls, hosts: Floats, each: Floats) -> Traffic:
        rows_of_hosts = (hosts > 1) & (each > 1)  # a row is a host, and all its columns go over one link to the next
        size = np.where(rows_of_hosts, 1, hosts * each)
        columns = _nearest_to_square(size)
        flat = on_one_link(hosts, 2 * (columns - 1) + 2 * (size / columns - 1), 2 * (size - 1) / size)
        return Traffic(
            np.where(rows_of_hosts, 2 * (each - 1), flat.inside_rounds),
            np.where(rows_of_hosts, 2 * (each - 1) / each, flat.inside_share),
            np.where(rows_of_hosts, 2 * (hosts - 1), flat.between_rounds),
            np.where(rows_of_hosts, 2 * (hosts - 1) / hosts, flat.between_share),
        )

    @classmethod
    def in_layout(cls, layout: Layout) -> Torus:
        """Ranks a host x hosts where hosts are equal, else the shape nearest to a square."""
        if layout.torus is not None:
            return cls(*layout.torus)
        hosts = layout.hosts or ()
        sizes = {len(host) for host in hosts}
        if len(hosts) > 1 and len(sizes) == 1 and sizes != {1}:
            return cls(sizes.pop(), len(hosts), np.array(hosts, np.int64).ravel())
        return cls(*nearest_to_square(layout.size))

    def check(self, size: int) -> None:
        if self.columns * self.rows != size:
            x, y = nearest_to_square(size)
            raise RecipeError(
                f"execution.aggregation.torus=[{self.columns},{self.rows}]: {self.columns} x {self.rows} must equal "
                f"the {size} ranks; use execution.aggregation.torus=[{x},{y}] or leave it out"
            )

    def grid(self, size: int) -> Ints:
        """The ranks (Y, X)."""
        order = np.arange(size, dtype=np.int64) if self._order is None else self._order
        return order.reshape(self.rows, self.columns)

    def within(self, groups: Groups) -> list[Stage]:
        ranks = groups.ranks[:, self.grid(groups.size).ravel()]
        rows = Groups(
            ranks.reshape(-1, self.columns), np.repeat(groups.begin, self.rows), np.repeat(groups.end, self.rows)
        )
        # After the rows' reduce-scatter column x holds piece x of every row, and has nothing to say of the others.
        cuts = groups.cuts(self.columns)
        columns = Groups(
            ranks.reshape(-1, self.rows, self.columns).swapaxes(1, 2).reshape(-1, self.rows),
            cuts[:, :-1].ravel(),
            cuts[:, 1:].ravel(),
        )
        return [
            [(0, RingReduceScatter(rows))],
            *Ring().within(columns),
            [(0, RingAllGather(rows))],
        ]


def nearest_to_square(size: int) -> tuple[int, int]:
    """X and Y with X Y = size, X <= Y, and X as large as can be."""
    columns = next(x for x in range(math.isqrt(size), 0, -1) if size % x == 0)
    return columns, size // columns


def _nearest_to_square(sizes: Floats) -> Floats:
    """X of each of many sizes at once."""
    columns = np.ones_like(sizes)
    for x in range(2, math.isqrt(int(sizes.max())) + 1):
        columns[(sizes % x == 0) & (sizes >= x * x)] = x
    return columns
