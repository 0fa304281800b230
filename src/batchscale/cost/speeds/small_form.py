"""The small form: what a step costs more at each doubling of the hosts, with priors from published tables.

log T(h') - log T(h) = C [h <= 1 < h'] + L x + S sqrt(x) z,   x = log2(h' / max(h, 1)),   z ~ N(0, 1)

T: seconds of a step, h: hosts. Three numbers describe a series:

L  the share by which a doubling of the hosts slows a step,
S  how far a doubling's own cost lies from L, up or down,
C  what leaving the first host costs beyond the doublings.

Each is lognormal over series. The medians are fitted to tables (priors.py); the spreads are stated, not fitted: of six
sources the spread of L and S comes out anywhere from 0.3 to 0.7, and what is predicted hardly depends on it. Every
measured step beyond the first host updates L and S of its series. The step that leaves the first host says next to
nothing of later ones (it goes into C), and is not used for them.

A prediction goes on from the last measured point, so that the error of a point counts once, and its interval widens
with the doublings between. Cost: grids of some hundreds of (L, S), some thousands of (C, L, S).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from batchscale.cost.speeds.series import Floats

SPREAD = math.log(2)
"""Of log L and log S: two series of three lie within a factor of two of the median."""
LEAVING_SPREAD = math.log(4)
"""Of log C: within a factor of four."""
COVERAGE_PERCENT = 90
_QUANTILES = (0.05, 0.5, 0.95)
_REACH = 3.0  # standard deviations of a grid, either way
_FARTHEST = 20.0  # of log T: no prediction lies as far away as e^20


@dataclass(frozen=True)
class Medians:
    """Of the three numbers over series, each a share of a step's time.

    Args:
        doubling: L, slower at each doubling of the hosts.
        jitter: S, the scatter around it.
        leaving: C, the cost of leaving the first host.
    """

    doubling: float
    jitter: float
    leaving: float


@dataclass(frozen=True)
class Steps:
    """The changes from each point of a series to the next.

    Args:
        log_ratio: log T(h') - log T(h) (n).
        doublings: x (n).
        leaves: whether the step leaves the first host (n).
    """

    log_ratio: Floats
    doublings: Floats
    leaves: Floats

    def those(self, *, leaving: bool) -> Steps:
        """Those that leave the first host, or the others."""
        chosen = self.leaves == leaving
        return Steps(self.log_ratio[chosen], self.doublings[chosen], self.leaves[chosen])


def steps_of(hosts: Floats, log_seconds: Floats) -> Steps:
    """The steps between neighbouring points that end beyond the first host.

    Args:
        hosts: of each point, rising (n).
        log_seconds: of a step at each, up to a constant (n).
    """
    beyond = hosts[1:] > 1
    doublings = np.log2(hosts[1:] / np.maximum(hosts[:-1], 1))
    return Steps(np.diff(log_seconds)[beyond], doublings[beyond], (hosts[:-1] <= 1)[beyond].astype(float))


@dataclass(frozen=True)
class _Grid:
    """Values with the weights that the priors give them (N)."""

    doubling: Floats
    jitter: Floats
    leaving: Floats
    log_weight: Floats


def _normal(points: int) -> tuple[Floats, Floats]:
    """Evenly spaced standard normal values, and the logs of their weights."""
    from scipy import special  # here, not above: a plan takes Medians from this file, and scipy takes longer than it

    z = np.linspace(-_REACH, _REACH, points)
    return z, -(z**2) / 2 - special.logsumexp(-(z**2) / 2)


def _grid(medians: Medians, leaving: bool) -> _Grid:
    """L and S, and C where it counts: a coarser grid of more axes."""
    axes = [_normal(points) for points in ((15, 9, 31) if leaving else (31, 15, 1))]
    doubling, jitter, left = (axis.ravel() for axis in np.meshgrid(*(z for z, _ in axes), indexing="ij"))
    weights = np.meshgrid(*(log_weight for _, log_weight in axes), indexing="ij")
    return _Grid(
        medians.doubling * np.exp(SPREAD * doubling),
        medians.jitter * np.exp(SPREAD * jitter),
        medians.leaving * np.exp(LEAVING_SPREAD * left) if leaving else np.zeros(doubling.shape),
        sum(weights[1:], weights[0]).ravel(),
    )


def log_likelihood(medians: Medians, series: Sequence[Steps]) -> float:
    """Of the steps of several series, each integrated over its own numbers.

    Args:
        medians: of the priors.
        series: steps of each, at least one; all of them leave the first host, or none.
    """
    from scipy import special

    grid = _grid(medians, bool(series[0].leaves.any()))
    steps = Steps(
        np.concatenate([its.log_ratio for its in series]),
        np.concatenate([its.doublings for its in series]),
        np.concatenate([its.leaves for its in series]),
    )
    first = np.cumsum([0, *(len(its.doublings) for its in series[:-1])])
    by_series = np.add.reduceat(_log_density(grid, steps), first, axis=0)
    return float(special.logsumexp(by_series + grid.log_weight, axis=1).sum())


def _log_density(grid: _Grid, steps: Steps) -> Floats:
    """log likelihood of each step at each value of the grid (n, N)."""
    scale = np.outer(np.sqrt(steps.doublings), grid.jitter)
    centre = np.outer(steps.doublings, grid.doubling) + np.outer(steps.leaves, grid.leaving)
    z = (steps.log_ratio[:, None] - centre) / scale
    return np.asarray(-(z**2) / 2 - np.log(scale) - math.log(2 * math.pi) / 2)


def predict(medians: Medians, hosts: Floats, log_seconds: Floats, others: Floats) -> Floats:
    """log seconds of a step at more hosts than were measured.

    Args:
        medians: of the priors.
        hosts, log_seconds: the measured points, rising (n >= 1).
        others: hosts, each above 1 and above the last measured one (m).

    Returns:
        Lower end, median and upper end of each, of 90 % (m, 3).
    """
    from scipy import special

    leaving = bool(hosts[-1] <= 1)
    steps = steps_of(hosts, log_seconds)
    grid = _grid(medians, leaving)
    log_joint = grid.log_weight + _log_density(grid, steps.those(leaving=False)).sum(axis=0)
    weight = np.exp(log_joint - special.logsumexp(log_joint))
    rows = []
    for doublings in np.log2(others / max(float(hosts[-1]), 1.0)):
        centre, scale = grid.leaving + grid.doubling * doublings, grid.jitter * math.sqrt(doublings)
        rows.append([log_seconds[-1] + _quantile(weight, centre, scale, share) for share in _QUANTILES])
    return np.array(rows)


def _quantile(weight: Floats, centre: Floats, scale: Floats, share: float) -> float:
    """Of a mixture of normals."""
    from scipy import optimize, special

    return float(
        optimize.brentq(
            lambda value: float(weight @ special.ndtr((value - centre) / scale)) - share, -_FARTHEST, _FARTHEST
        )
    )
