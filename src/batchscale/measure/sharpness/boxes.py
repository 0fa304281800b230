"""The two boxes in which the loss is maximised, in the full space or a random subspace: x + A y, |y_i| <= b_i.

                 keskar                           adaptive
full space       A = I, b = eps (|x| + 1)         A = diag |x|, b = eps
subspace         A = G, b = eps (|G^+ x| + 1)     A = diag |x| G, b = eps

G is n x p of N(0, 1). Where a layer is multiplied by c and another divided by it, so that the net stays the same
function, the adaptive box goes with the weights, and the maximum over it stays; Keskar's box does not.

Source: Keskar et al. 2016 (arXiv 1609.04836), metric 2.1; Kwon et al. 2021, "ASAM", with T_w = diag |w| and the maximum
norm; Andriushchenko et al. 2023, "A modern look at the relationship between sharpness and generalization".
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from batchscale.measure.sharpness.directions import Directions
from batchscale.measure.sharpness.maximum import Vector

Form = Literal["keskar", "adaptive"]


class Box:
    """Points around weights: x + A y, |y_i| <= eps s_i.

    Args:
        form: of the box.
        weights: x, float64 (n,).
        directions: G, of a subspace; None for the full space.

    Attributes:
        sides: s, float64 (n,) or (p,).
    """

    def __init__(self, form: Form, weights: Vector, directions: Directions | None) -> None:
        self._weights, self._directions = weights, directions
        self._scale = np.abs(weights) if form == "adaptive" else None
        if form == "adaptive":
            self.sides = np.ones(len(weights) if directions is None else directions.count)
        else:
            self.sides = np.abs(weights if directions is None else directions.coordinates(weights)) + 1

    def point(self, coordinates: Vector) -> Vector:
        """x + A y, (n,)."""
        moves = coordinates if self._directions is None else self._directions.moved(coordinates)
        return self._weights + (moves if self._scale is None else self._scale * moves)

    def pulled(self, gradient: Vector) -> Vector:
        """A' g: the gradient by y of a function whose gradient by the weights is g, (n,)."""
        scaled = gradient if self._scale is None else self._scale * gradient
        return scaled if self._directions is None else self._directions.products(scaled)
