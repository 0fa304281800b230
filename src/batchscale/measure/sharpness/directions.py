"""Random directions in the space of the weights: a matrix of n x p numbers of N(0, 1), keyed.

Cost: 4 n p bytes, and a pass over them for every product; A^+ by the p x p matrix A' A, 2 n p^2 operations.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from batchscale.measure.sharpness.maximum import Vector
from batchscale.randomness import key

Numbers = TypeVar("Numbers", npt.NDArray[np.float32], Vector)

_DIRECTIONS = 206  # stream
_BLOCK = 1 << 15  # weights whose products are summed in float32; the blocks' sums are in float64


class Directions:
    """A, (n, p), held as its columns in float32.

    Args:
        weights: n.
        count: p, at most n.
        number: of the draw; each is another subspace, the same on every process and for every run of as many weights.

    Attributes:
        count: p.
    """

    def __init__(self, weights: int, count: int, number: int) -> None:
        self.count = count
        self._columns = np.empty((count, weights), dtype=np.float32)
        for place, column in enumerate(self._columns):  # not torch's numbers: these are the same on any processor
            generator = np.random.Generator(np.random.Philox(key=key(_DIRECTIONS, number, place)))
            generator.standard_normal(dtype=np.float32, out=column)

    def moved(self, coordinates: Vector) -> Vector:
        """A y of y (p,): (n,)."""
        with threadpool_limits(1, user_api="blas"):  # here and below: the same bits for every number of threads
            moves: Vector = (coordinates.astype(np.float32) @ self._columns).astype(np.float64)
        return moves

    def products(self, vector: Vector) -> Vector:
        """A' v of v (n,): (p,)."""
        products = np.zeros(self.count)
        with threadpool_limits(1, user_api="blas"):
            for columns, part in self._blocks(vector.astype(np.float32)):
                products += columns @ part
        return products

    def coordinates(self, vector: Vector) -> Vector:
        """A^+ v of v (n,), (p,): the y whose A y lies nearest to v."""
        squares, products = np.zeros((self.count, self.count)), np.zeros(self.count)
        with threadpool_limits(1, user_api="blas"):
            for columns, part in self._blocks(vector):
                doubled = columns.astype(np.float64)
                squares += doubled @ doubled.T
                products += doubled @ part
            solved: Vector = np.asarray(np.linalg.solve(squares, products), dtype=np.float64)
        return solved

    def _blocks(self, vector: Numbers) -> Iterator[tuple[npt.NDArray[np.float32], Numbers]]:
        for start in range(0, len(vector), _BLOCK):
            block = slice(start, start + _BLOCK)
            yield self._columns[:, block], vector[block]
