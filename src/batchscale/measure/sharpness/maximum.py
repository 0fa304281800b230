"""The highest value of a function in a box, by L-BFGS-B.

max f(y) over |y_i| <= b_i, from y = 0

Scaled, the variables are u = y / b, in [-1, 1], and the function is multiplied by a constant that makes its first
gradient large beside this box. So the first step goes to the corner that the gradient points to, the steepest ascent in
a box. Plain, y and f stand as they are: where the gradient is small beside the box, each iteration of L-BFGS-B ends
where the first variable meets its bound: of a million, ten do in ten iterations.

Source: Byrd, Lu, Nocedal and Zhu 1995, "A limited memory algorithm for bound constrained optimization"; scipy's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import Bounds, minimize
from threadpoolctl import threadpool_limits

from batchscale.randomness import key, uniform

Vector = npt.NDArray[np.float64]
Function = Callable[[Vector], tuple[float, Vector]]
"""y (p,) -> (value, gradient (p,))."""

_STEEP = 1000.0  # mean size of the first gradient's entries beside a box from -1 to 1
_START = 217  # stream: where a search starts instead of a stationary point
_LIMIT_STATUS = 1  # scipy's, of iterations or evaluations used up


@dataclass(frozen=True)
class Maximum:
    """What a search came to.

    Attributes:
        start: f(0).
        highest: the highest value; at least f(0).
        iterations: that L-BFGS-B took.
        evaluations: of the function with its gradient.
        limited: it ended by its limit of iterations; more may come to a higher value.
        at_bound: share of the variables that lie on a side of the box at the end.
    """

    start: float
    highest: float
    iterations: int
    evaluations: int
    limited: bool
    at_bound: float


def maximum(function: Function, bounds: Vector, iterations: int, plain: bool = False) -> Maximum:
    """The highest value of a function in a box around 0.

    Args:
        function: y float64 (p,) -> (f(y), its gradient float64 (p,)).
        bounds: b float64 (p,), at least 0.
        iterations: of L-BFGS-B, at most.
        plain: variables and function as they stand, not scaled.
    """
    search = _Search(function, bounds, plain)
    with threadpool_limits(1, user_api="blas"):  # scipy's sums: the same bits for every number of threads
        options = {"maxiter": iterations, "maxfun": 20 * iterations + 20, "gtol": 0.0}
        box = Bounds(-search.reach, search.reach)
        ended = minimize(search.fall, search.first, jac=True, method="L-BFGS-B", bounds=box, options=options)
    limited = ended.status == _LIMIT_STATUS
    at_bound = float((np.abs(ended.x) == search.reach).mean())
    return Maximum(search.start, search.highest, int(ended.nit), search.evaluations, limited, at_bound)


class _Search:
    """The function as scipy is to minimise it."""

    def __init__(self, function: Function, bounds: Vector, plain: bool) -> None:
        self._function, self._unit = function, np.ones_like(bounds) if plain else bounds
        self.reach = bounds if plain else np.ones_like(bounds)
        self.evaluations, self.highest = 0, -np.inf
        self.first = np.zeros_like(bounds)
        self.start, gradient = self._evaluated(self.first)
        if not gradient.any():  # a stationary point: along gradients no search would leave it
            self.first = (2 * uniform(key(_START), np.arange(len(bounds))) - 1) * self.reach
            _, gradient = self._evaluated(self.first)
        self._scale = 1.0 if plain else _STEEP / (float(np.abs(gradient).mean()) or _STEEP)

    def fall(self, variables: Vector) -> tuple[float, Vector]:
        """u (p,) -> -c (f - f(0)), and its gradient."""
        value, gradient = self._evaluated(variables)
        return -self._scale * (value - self.start), -self._scale * gradient

    def _evaluated(self, variables: Vector) -> tuple[float, Vector]:
        value, gradient = self._function(variables * self._unit)
        self.evaluations, self.highest = self.evaluations + 1, max(self.highest, float(value))
        return float(value), gradient * self._unit
