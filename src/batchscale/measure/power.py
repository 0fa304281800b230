"""The Hessian's eigenvalue of largest magnitude by power iteration: few products, and the same bits for every W.

    v <- H v / |H v|,   lambda_i = v' H v,   until |lambda_i - lambda_(i-1)| <= tolerance |lambda_i|, or i = the most

lambda = v' H v errs by the square of v's error, so two or three digits need few products, where the eigenvector itself
is far from settled. Source: Golub and Van Loan 2013, "Matrix Computations", section 8.2.1; so measured by Yao et al.
2018, with at most 10 products and a tolerance of 0.01 (HessianFlow, optimizer/absa.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from batchscale.randomness import key

_START = 216  # stream: the vector that the iteration begins with, the same at every step of a run


@dataclass(frozen=True)
class TopEigenvalue:
    """What a power iteration came to.

    Attributes:
        value: lambda; below zero where the most negative eigenvalue is the largest in magnitude.
        residual: |H v - lambda v|: an eigenvalue lies within it of lambda.
        products: of the Hessian with a vector.
    """

    value: float
    residual: float
    products: int


def top_eigenvalue(
    product: Callable[[torch.Tensor], torch.Tensor], size: int, tolerance: float, most_products: int
) -> TopEigenvalue:
    """The eigenvalue of largest magnitude of a symmetric matrix.

    Args:
        product: v -> H v, float64 (size,).
        size: of v.
        tolerance: relative change between two iterates that ends it.
        most_products: at which it ends at the latest.
    """
    generator = torch.Generator().manual_seed(key(_START) >> 1)
    vector = torch.randn(size, dtype=torch.float64, generator=generator)
    vector /= vector.norm()
    value, residual, last, products = 0.0, 0.0, float("nan"), 0
    while products < most_products:
        image = product(vector).to(vector.device)
        value, products = float(vector @ image), products + 1
        residual = float((image - value * vector).norm())
        length = float(image.norm())
        if length == 0 or abs(value - last) <= tolerance * abs(value):
            break
        vector, last = image / length, value
    return TopEigenvalue(value, residual, products)
