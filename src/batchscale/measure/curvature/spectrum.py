"""Eigenvalues, trace and density of a symmetric matrix that is known by its products with vectors alone.

    H q = lambda q                                    Lanczos with implicit restarts (ARPACK), largest lambda
    tr H = sum_q q' H q + E v' (I - Q) H (I - Q) v    Hutchinson, v_i = +1 or -1, beside the eigenvectors q; Q projects
                                                      on these; Student's interval of R probes
    density(x) = E sum_j w_j N(x; theta_j, sigma^2)   stochastic Lanczos quadrature: theta, w of its tridiagonal matrix

A few large eigenvalues make v' H v skewed, so that Student's interval of a few probes covers too seldom (84.6 % for
90 % of a matrix like a net's); beside their eigenvectors it covers as it should, and is far narrower. Every residual
|H q - lambda q| bounds how far an eigenvalue of H lies from lambda (for |q| = 1).

Source: Lehoucq, Sorensen and Yang 1998 (ARPACK); Hutchinson 1990; Meyer, Musco, Musco and Woodruff 2021, "Hutch++" (the
split); Ubaru, Chen and Saad 2017, algorithm 1; Ghorbani, Krishnan and Xiao 2019, section 2 (densities of nets).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from scipy import stats
from scipy.linalg import eigh_tridiagonal
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh
from threadpoolctl import threadpool_limits

from batchscale.randomness import bits, key, normal

Floats = npt.NDArray[np.float64]
Products = Callable[[torch.Tensor], torch.Tensor]
"""Rows (r, P) -> H times each row, float64 (r, P)."""

_WHOLE = 64  # up to so many weights the whole matrix is made: exact, and as cheap
_RESTARTS = 100
_NUMBERS_AT_ONCE = 1 << 24  # of probes that share a pass
_MOST_KEPT = (
    1 << 27
)  # numbers of a Lanczos basis, 1 GiB: without it, eigenvalues come twice and the density stays right
_START, _PROBE, _DENSITY = 218, 207, 208  # streams: the first vector of Lanczos, probes of the trace, of the density
_GRID, _WIDTH = 400, 0.01  # points of a density, and its sigma as a share of the spectrum
_ENDED = 1e-10  # of the largest number of the tridiagonal matrix: what is left of the next vector is rounding


@dataclass(frozen=True)
class TopEigenvalues:
    """The largest eigenvalues, the largest first.

    Attributes:
        values, residuals: of each, |H q - lambda q| beside lambda.
        converged: all that were asked for came within the tolerance.
    """

    values: tuple[float, ...]
    residuals: tuple[float, ...]
    converged: bool


@dataclass(frozen=True)
class Subspace:
    """Orthonormal rows q (k, P) whose products are known.

    Attributes:
        rows: float64, on the CPU.
        trace: sum of q' H q.
    """

    rows: torch.Tensor
    trace: float


@dataclass(frozen=True)
class TraceEstimate:
    """tr H with an interval of a level, from so many probes."""

    value: float
    low: float
    high: float
    probes: int
    level: float


@dataclass(frozen=True)
class SpectralDensity:
    """A density at places x: the mean over probes, and the lowest and highest of them."""

    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


def top_eigenvalues(
    products: Products, size: int, count: int, seed: int, tolerance: float
) -> tuple[TopEigenvalues, Subspace]:
    """The largest eigenvalues, and the space of their eigenvectors.

    Args:
        products: with the matrix.
        size: P.
        count: at most P.
        seed: of the first vector.
        tolerance: of an eigenvalue, relative.
    """
    converged, count = True, min(count, size)
    if size <= _WHOLE:
        matrix = products(torch.eye(size, dtype=torch.float64)).cpu().numpy()
        values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    else:
        operator = LinearOperator((size, size), matvec=partial(_product, products), dtype=np.float64)
        start = normal(key(seed, _START), np.arange(size))
        try:
            with threadpool_limits(1, user_api="blas"):  # so that its bits hang on no number of cores
                values, vectors = eigsh(
                    operator, min(count, size - 1), which="LA", v0=start, tol=tolerance, maxiter=_RESTARTS
                )
        except ArpackNoConvergence as error:
            values, vectors, converged = error.eigenvalues, error.eigenvectors, False
    order = np.argsort(-values)[:count]
    values, rows = values[order], torch.from_numpy(np.ascontiguousarray(vectors[:, order].T))
    if not len(rows):
        return TopEigenvalues((), (), converged), Subspace(rows, 0.0)
    moved = products(rows).cpu()
    away = moved - torch.from_numpy(values.copy())[:, None] * rows
    top = TopEigenvalues(tuple(values.tolist()), tuple(away.norm(dim=1).tolist()), converged)
    return top, Subspace(rows, float((moved * rows).sum()))


def _product(products: Products, vector: Floats) -> Floats:
    row: Floats = products(torch.from_numpy(np.ascontiguousarray(vector.reshape(1, -1))))[0].cpu().numpy()
    return row


def signs(seed: int, stream: int, number: int, size: int) -> torch.Tensor:
    """A random vector of +1 and -1, float64 (P,): a function of its key alone."""
    upper = bits(key(seed, stream, number), np.arange(size)) >> np.uint64(63)
    return torch.from_numpy(1.0 - 2.0 * upper.astype(np.float64))


def trace(
    products: Products, size: int, probes: int, seed: int, level: float, beside: Subspace | None = None
) -> TraceEstimate:
    """tr H.

    Args:
        products: with the matrix.
        size: P.
        probes: R; of a single one there is no interval.
        seed: of the probes.
        level: of the interval, such as 0.9.
        beside: a space whose share is known.
    """
    at_once, forms = max(min(probes, _NUMBERS_AT_ONCE // size), 1), []
    for first in range(0, probes, at_once):
        numbers = range(first, min(first + at_once, probes))
        rows = torch.stack([signs(seed, _PROBE, number, size) for number in numbers])
        if beside is not None:
            rows = rows - (rows @ beside.rows.T) @ beside.rows
        forms += (products(rows).cpu() * rows).sum(1).tolist()
    return student([form + (beside.trace if beside is not None else 0.0) for form in forms], level)


def student(forms: list[float], level: float) -> TraceEstimate:
    """The mean of R equal draws with Student's interval; infinite of one alone."""
    count, mean = len(forms), math.fsum(forms) / len(forms)
    if count < 2:
        return TraceEstimate(mean, -math.inf, math.inf, count, level)
    spread = math.sqrt(math.fsum((form - mean) ** 2 for form in forms) / (count - 1) / count)
    half = float(stats.t.ppf((1 + level) / 2, count - 1)) * spread
    return TraceEstimate(mean, mean - half, mean + half, count, level)


def lanczos(products: Products, start: torch.Tensor, steps: int) -> tuple[Floats, Floats]:
    """Nodes and weights of the quadrature of a vector: q' f(H) q = sum_j w_j f(theta_j), exact up to degree 2 m - 1.

    Args:
        products: with the matrix.
        start: q (P,), of any length.
        steps: m, of which fewer are done where the vectors span all that H makes of q.
    """
    steps = min(steps, len(start))
    keeps = steps * len(start) <= _MOST_KEPT
    vector, earlier = start / start.norm(), torch.zeros_like(start)
    basis: list[torch.Tensor] = []
    diagonal: list[float] = []
    beside: list[float] = []
    for _ in range(steps):
        basis = [*basis, vector] if keeps else []
        following = products(vector[None])[0].cpu()
        diagonal.append(float(vector @ following))
        following = following - diagonal[-1] * vector - (beside[-1] if beside else 0.0) * earlier
        for other in [*basis, *basis]:  # twice is enough (Parlett 1998, section 6.9)
            following -= (other @ following) * other
        length = float(following.norm())
        if length <= _ENDED * max(map(abs, [*diagonal, *beside])):
            break
        beside.append(length)
        vector, earlier = following / length, vector
    nodes, vectors = eigh_tridiagonal(np.array(diagonal), np.array(beside[: len(diagonal) - 1]))
    return nodes, vectors[0] ** 2


def spectral_density(products: Products, size: int, steps: int, probes: int, seed: int) -> SpectralDensity:
    """The density of the eigenvalues, smoothed by a normal density of 1 % of the spectrum's length."""
    quadratures = [lanczos(products, signs(seed, _DENSITY, number, size), steps) for number in range(probes)]
    lowest = min(float(nodes.min()) for nodes, _ in quadratures)
    highest = max(float(nodes.max()) for nodes, _ in quadratures)
    sigma = _WIDTH * (highest - lowest) or _WIDTH * abs(highest) or _WIDTH
    x = np.linspace(lowest - 5 * sigma, highest + 5 * sigma, _GRID)
    each = np.array([stats.norm.pdf(x[:, None], nodes, sigma) @ weights for nodes, weights in quadratures])
    numbers = (x, each.mean(0), each.min(0), each.max(0))
    return SpectralDensity(*(tuple(float(number) for number in values) for values in numbers))
