"""|G|^2 and tr S of a set of units at fixed weights, from sums over blocks of them; their jackknife.

With M units of b examples out of N without replacement, s the sum of their mean gradients and Q that of the squared
norms of these:

    tr S = b (Q - |s|^2 / M) / (M - 1),    |G|^2 = (|s|^2 - Q) / (M (M - 1)) + tr S / N

|G|^2 is the mean over all pairs of different units, far surer than the difference of one minibatch. The covariance
of both is the delete-one-block jackknife's, times 1 - M b / N. It counts the variance of the second-order part of |G|^2
(the products of two units' noise) twice, so where M is far below the noise scale, and |G|^2 mostly not resolved, the
interval is too wide, not too narrow (90 % cover up to 97 %).

Source: Efron and Stein 1981, "The jackknife estimate of variance", section 3 (twice); Cochran 1977, theorem 2.2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from batchscale.noise_scale import LEVEL, Covariance, NoiseEstimate, StepNoise, ratio_interval

Floats = npt.NDArray[np.float64]
_FEWEST_BLOCKS = 4  # fewer deviations say next to nothing of a spread


@dataclass(frozen=True)
class BlockSums:
    """Sums over blocks of units.

    Attributes:
        products: (m, m): inner products of the blocks' summed gradients.
        squares: (m,): of each block, the sum of its units' squared norms.
        units: (m,): of each block.
    """

    products: Floats
    squares: Floats
    units: Floats


def estimate(sums: BlockSums, per_unit: int, population: int, level: float = LEVEL) -> NoiseEstimate:
    """The noise scale of all units, with its interval.

    Args:
        sums: over at least two units.
        per_unit: b, examples of a unit.
        population: N, from which the examples were drawn without replacement.
        level: of the interval, such as 0.9.

    Returns:
        The estimate; without an interval, [0, None], where there are fewer than four blocks.
    """
    whole, squares, units = float(sums.products.sum()), float(sums.squares.sum()), float(sums.units.sum())
    mean = _noise(whole, squares, units, per_unit, population)
    if len(sums.units) < _FEWEST_BLOCKS:
        return NoiseEstimate(*mean, 0.0, None, level)
    covariance = _covariance(sums, per_unit, population)
    interval = ratio_interval(mean, covariance, len(sums.units) - 1, level)
    return NoiseEstimate(*mean, *interval, level)


def _noise(whole: float, squares: float, units: float, per_unit: int, population: int) -> StepNoise:
    trace = per_unit * (squares - whole / units) / (units - 1)
    return StepNoise((whole - squares) / (units * (units - 1)) + trace / population, trace)


def _covariance(sums: BlockSums, per_unit: int, population: int) -> Covariance:
    count = len(sums.units)
    whole, squares, units = float(sums.products.sum()), float(sums.squares.sum()), float(sums.units.sum())
    without = np.array(
        [
            _noise(
                whole - 2 * sums.products[block].sum() + sums.products[block, block],
                squares - sums.squares[block],
                units - sums.units[block],
                per_unit,
                population,
            )
            for block in range(count)
        ]
    )
    deviations = without - without.mean(0)
    gradient, both, trace = ((count - 1) / count * deviations.T @ deviations)[[0, 0, 1], [0, 1, 1]].tolist()
    left = max(1 - units * per_unit / population, 0.0)
    return Covariance(left * gradient, left * both, left * trace)
