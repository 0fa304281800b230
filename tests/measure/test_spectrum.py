"""Eigenvalues, trace and density from products alone, against a matrix that is known."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from batchscale.measure.curvature.spectrum import (
    Subspace,
    lanczos,
    signs,
    spectral_density,
    student,
    top_eigenvalues,
    trace,
)
from batchscale.measure.function import in_threads

SIZE = 150


@pytest.fixture(autouse=True)
def one_thread():
    """As in a measure; products of small matrices gain nothing by more."""
    with in_threads(1):
        yield


def known(size=SIZE, seed=0):
    """A symmetric matrix with a few large eigenvalues, as nets' Hessians have."""
    generator = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(generator.standard_normal((size, size)))
    values = np.sort(np.concatenate([[40.0, 25.0, 9.0], generator.normal(0, 0.5, size - 3)]))
    return values, torch.from_numpy((turn * values) @ turn.T)


VALUES, MATRIX = known()


def products(rows):
    return rows @ MATRIX


def test_eigenvalues_are_those_of_the_matrix_and_residuals_bound_their_errors():
    top, _ = top_eigenvalues(products, SIZE, 5, seed=0, tolerance=1e-9)
    assert top.converged
    np.testing.assert_allclose(top.values, VALUES[::-1][:5], rtol=1e-8)
    coarse, _ = top_eigenvalues(products, SIZE, 3, seed=0, tolerance=0.05)
    for value, residual in zip(coarse.values, coarse.residuals, strict=True):
        assert np.abs(VALUES - value).min() <= residual * (1 + 1e-9) + 1e-12
    assert top_eigenvalues(products, SIZE, 5, seed=0, tolerance=1e-9)[0] == top


def test_a_small_matrix_is_made_whole():
    values, matrix = known(6)
    top, _ = top_eigenvalues(lambda rows: rows @ matrix, 6, 9, seed=0, tolerance=1e-3)
    np.testing.assert_allclose(top.values, values[::-1], rtol=1e-12)
    assert max(top.residuals) < 1e-12


def test_eigenvalues_that_do_not_converge_are_told():
    generator = torch.Generator().manual_seed(0)

    def noisy(rows):
        return rows @ MATRIX + torch.randn(rows.shape, generator=generator, dtype=torch.float64)

    top, _ = top_eigenvalues(noisy, SIZE, 4, seed=0, tolerance=1e-12)
    assert not top.converged or max(top.residuals) > 1


def covers(seed, matrix, space):
    estimate = trace(lambda rows: rows @ matrix, len(matrix), 10, seed, 0.9, space)
    return estimate.low <= float(matrix.trace()) <= estimate.high


def test_the_90_percent_interval_of_the_trace_covers_it_as_often():
    """Beside its large eigenvalues; and of a matrix that has none."""
    _, space = top_eigenvalues(products, SIZE, 3, seed=0, tolerance=1e-3)
    assert 875 <= sum(covers(seed, MATRIX, space) for seed in range(1000)) <= 925
    even = MATRIX - (space.rows.T * torch.tensor(VALUES[::-1][:3].copy())) @ space.rows
    assert 875 <= sum(covers(seed, even, None) for seed in range(1000)) <= 925


def test_the_share_of_a_space_is_known_whatever_the_space():
    row = torch.zeros(1, SIZE, dtype=torch.float64)
    row[0, 7] = 1
    estimate = trace(products, SIZE, 400, 0, 0.99, Subspace(row, float(MATRIX[7, 7])))
    assert estimate.low <= float(MATRIX.trace()) <= estimate.high
    diagonal = torch.arange(1.0, SIZE + 1, dtype=torch.float64)  # v' D v is its trace, whatever the signs of v are
    estimate = trace(lambda rows: rows * diagonal, SIZE, 3, 0, 0.9, Subspace(row, 8.0))
    assert (estimate.value, estimate.high) == pytest.approx((float(diagonal.sum()),) * 2, rel=1e-12)


def test_a_trace_is_the_mean_of_its_probes():
    forms = [float(v @ MATRIX @ v) for v in (signs(3, 207, number, SIZE) for number in range(4))]
    estimate = trace(products, SIZE, 4, 3, 0.9)
    assert estimate.value == pytest.approx(np.mean(forms), rel=1e-12)
    half = stats.t.ppf(0.95, 3) * np.std(forms, ddof=1) / 2
    assert (estimate.low, estimate.high) == pytest.approx((np.mean(forms) - half, np.mean(forms) + half), rel=1e-10)
    assert student([2.0], 0.9).high == math.inf


def test_the_quadrature_is_exact_up_to_degree_2m_minus_1():
    start = signs(0, 208, 0, SIZE)
    nodes, weights = lanczos(products, start, 6)
    powers = start.clone()
    for degree in range(12):
        assert float(start @ powers) / SIZE == pytest.approx(float(weights @ nodes**degree), rel=1e-9, abs=1e-9)
        powers = MATRIX @ powers


def test_the_quadrature_ends_where_the_vectors_span_all():
    nodes, weights = lanczos(lambda rows: 3 * rows, torch.ones(20, dtype=torch.float64), 10)
    assert (nodes.tolist(), weights.tolist()) == ([3.0], [1.0])


def test_the_density_is_that_of_the_smoothed_eigenvalues():
    density = spectral_density(products, SIZE, 60, 60, seed=0)
    x, y = np.array(density.x), np.array(density.y)
    sigma = 0.01 * (VALUES[-1] - VALUES[0])
    truth = stats.norm.pdf(x[:, None], VALUES, sigma).mean(1)
    assert np.trapezoid(y, x) == pytest.approx(1, abs=1e-3)
    assert np.abs(y - truth).max() < 0.1 * truth.max()
    assert all(low <= middle <= high for low, middle, high in zip(density.low, y, density.high, strict=True))
