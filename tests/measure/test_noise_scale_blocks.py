"""|G|^2 and tr S over a set at fixed weights: without bias, and intervals that cover in either regime."""

import itertools
import math

import numpy as np
import pytest

from batchscale.measure.noise_scale.blocks import BlockSums, estimate
from batchscale.noise_scale import LEVEL


def sums_of(units, blocks=20):
    """Of units' mean gradients, (M, d)."""
    parts = np.array_split(units, min(blocks, len(units)))
    summed = np.stack([part.sum(0) for part in parts])
    squares = np.array([(part**2).sum() for part in parts])
    return BlockSums(summed @ summed.T, squares, np.array([float(len(part)) for part in parts]))


def truth_of(population):
    mean = population.mean(0)
    trace = ((population - mean) ** 2).sum() / (len(population) - 1)
    return float(mean @ mean), float(trace)


@pytest.mark.parametrize("per_unit", [1, 2])
def test_both_are_exact_on_average_over_all_draws(per_unit):
    """Of every set of units that can be drawn from six examples."""
    examples = np.array([[1.0, 0.0], [2.0, -1.0], [0.5, 3.0], [-1.0, 1.0], [4.0, 0.25], [0.0, -2.0]])
    draws = itertools.permutations(range(6), 4)
    found = [estimate(sums_of(examples[list(d)].reshape(-1, per_unit, 2).mean(1)), per_unit, 6) for d in draws]
    gradient_squared, trace = truth_of(examples)
    assert np.mean([one.gradient_squared for one in found]) == pytest.approx(gradient_squared, rel=1e-12)
    assert np.mean([one.trace for one in found]) == pytest.approx(trace, rel=1e-12)


def test_the_whole_set_is_exact_and_its_interval_a_point():
    population = np.random.default_rng(0).standard_normal((100, 7)) + 0.3
    gradient_squared, trace = truth_of(population)
    whole = estimate(sums_of(population), 1, 100)
    assert (whole.gradient_squared, whole.trace) == pytest.approx((gradient_squared, trace), rel=1e-12)
    assert (whole.low, whole.high) == pytest.approx((whole.noise_scale, whole.noise_scale), rel=1e-9)
    assert whole.resolved


@pytest.mark.parametrize(
    ("dimensions", "noise", "drawn", "population"),
    [
        (10, 1.0, 1000, None),  # B_simple 10: far fewer than the examples
        (10, 20.0, 200, None),  # 200: mostly not resolved
        (20, 10.0, 1000, 4000),  # 200 and more: a quarter of a set, of uneven examples
    ],
)
def test_a_90_percent_interval_covers_the_truth_in_90_percent_of_repeats(dimensions, noise, drawn, population):
    """A quadratic with known noise: gradients of single examples are N(G, diagonal), |G|^2 = 1."""
    generator = np.random.default_rng(4)
    deviations = np.sqrt(noise * np.linspace(0.2, 1.8, dimensions))

    def draw(count):
        return 1 / math.sqrt(dimensions) + generator.standard_normal((count, dimensions)) * deviations

    truth = noise * dimensions
    if population:
        everyone = draw(population) * np.exp(0.5 * generator.standard_normal((population, 1)))
        gradient_squared, trace = truth_of(everyone)
        truth = trace / gradient_squared
    inside = 0
    for _ in range(1000):
        units = everyone[generator.permutation(population)[:drawn]] if population else draw(drawn)
        one = estimate(sums_of(units), 1, population or 10**12)
        inside += one.low <= truth <= (math.inf if one.high is None else one.high)
    assert 0.875 <= inside / 1000 <= 0.925


def test_far_below_the_noise_scale_the_interval_is_rather_too_wide():
    """B_simple 10,000 from 500 examples, 100 dimensions: |G|^2 is not resolved, and the truth is rarely shut out."""
    generator = np.random.default_rng(4)
    inside = resolved = 0
    for _ in range(300):
        one = estimate(sums_of(0.1 + generator.standard_normal((500, 100)) * 10), 1, 10**12)
        inside += one.low <= 10_000
        resolved += one.resolved
    assert inside / 300 > 0.93
    assert resolved / 300 < 0.1


def test_of_few_units_no_interval_is_told():
    units = np.random.default_rng(0).standard_normal((3, 2)) + 2
    one = estimate(sums_of(units), 4, 1000)
    assert (one.low, one.high, one.resolved, one.level) == (0.0, None, False, LEVEL)
