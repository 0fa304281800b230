"""Power iteration: the eigenvalue of largest magnitude of matrices whose eigenvalues are known."""

import numpy as np
import pytest
import torch

from batchscale.measure.power import top_eigenvalue


def symmetric(eigenvalues):
    """A matrix with these eigenvalues, in a random basis."""
    basis, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(len(eigenvalues),) * 2))
    return torch.from_numpy(basis * np.array(eigenvalues) @ basis.T)


@pytest.mark.parametrize(
    ("eigenvalues", "top"), [([7.0, 3, 2, 1, -1, 0, 0], 7), ([2.0, -9, 1, 0, 3], -9), ([5.0, 5, 1, 1], 5)]
)
def test_it_converges_to_the_eigenvalue_of_largest_magnitude(eigenvalues, top):
    matrix = symmetric(eigenvalues)
    found = top_eigenvalue(lambda vector: matrix @ vector, len(eigenvalues), 1e-12, 500)
    assert found.value == pytest.approx(top, rel=1e-9)
    assert found.residual < 1e-4


def test_some_eigenvalue_lies_within_the_residual():
    eigenvalues = np.linspace(-3, 10, 40)
    matrix = symmetric(eigenvalues)
    found = top_eigenvalue(lambda vector: matrix @ vector, 40, 0.01, 20)
    assert found.products < 20
    assert np.abs(eigenvalues - found.value).min() <= found.residual
    assert found.value == pytest.approx(10, rel=0.1)


def test_it_ends_after_the_most_products_and_at_a_matrix_of_zeros():
    matrix, calls = symmetric([4.0, 3.99, 3.98, 3.97]), []
    found = top_eigenvalue(lambda vector: calls.append(1) or matrix @ vector, 4, 1e-15, 6)
    assert found.products == len(calls) == 6
    nothing = top_eigenvalue(torch.zeros_like, 4, 0.01, 6)
    assert (nothing.value, nothing.residual, nothing.products) == (0.0, 0.0, 1)
