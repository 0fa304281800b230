"""The noise scale's arithmetic: without bias for units of any sizes, intervals that cover, nothing clipped."""

import itertools
import json
import math

import numpy as np
import pytest

from batchscale.noise_scale import BLOCK_STEPS, Covariance, NoiseBlocks, StepNoise, ratio_interval, step_noise


def of_gradients(gradients, sizes, population=None):
    """A step's answer from the gradients of single examples, cut into units of these sizes."""
    gradients = np.asarray(gradients, dtype=float)
    total = len(gradients)
    cuts = np.cumsum([0, *sizes])
    parts = [gradients[first:end].sum(0) / total for first, end in itertools.pairwise(cuts)]
    squares = sum(part @ part / size for part, size in zip(parts, sizes, strict=True))
    whole = sum(parts)
    return step_noise(len(sizes), squares, whole @ whole, total, population)


@pytest.mark.parametrize("sizes", [(1, 1), (1, 2), (1, 1, 1), (2, 2), (1, 3), (1, 1, 2)])
@pytest.mark.parametrize("replaced", [False, True])
def test_both_are_exact_on_average_over_all_draws(sizes, replaced):
    """Of every minibatch that can be drawn from five examples, with and without replacement: no bias at all."""
    examples = np.array([[1.0, 0.0], [2.0, -1.0], [0.5, 3.0], [-1.0, 1.0], [4.0, 0.25]])
    mean = examples.mean(0)
    deviations = examples - mean
    trace = (deviations**2).sum() / (5 if replaced else 4)
    drawn = sum(sizes)
    draws = itertools.product(range(5), repeat=drawn) if replaced else itertools.permutations(range(5), drawn)
    steps = [of_gradients(examples[list(draw)], sizes, None if replaced else 5) for draw in draws]
    assert np.mean([step.gradient_squared for step in steps]) == pytest.approx(mean @ mean, rel=1e-12)
    assert np.mean([step.trace for step in steps]) == pytest.approx(trace, rel=1e-12)


def quadratic(generator, steps, units, per_unit, scale, noise):
    """Steps on the quadratic |w - x|^2 / 2, x ~ N(mean, diagonal): gradients with known |G|^2 and tr S."""
    variances = noise * np.linspace(0.2, 1.8, 8)
    gradient = np.full(8, scale / math.sqrt(8))
    examples = generator.standard_normal((steps, units * per_unit, 8)) * np.sqrt(variances) + gradient
    return examples, scale**2, variances.sum()


def linear(generator, steps, units, per_unit, scale, noise):
    """Steps of a linear model (w'x - y)^2 / 2, x uniform on the cube's corners: gradient r x, r ~ N(scale x_1, noise).

    E r x = scale e_1; E |r x|^2 = 6 (scale^2 + noise).
    """
    corners = generator.choice([-1.0, 1.0], (steps, units * per_unit, 6))
    residuals = scale * corners[..., :1] + math.sqrt(noise) * generator.standard_normal((steps, units * per_unit, 1))
    return residuals * corners, scale**2, 6 * (scale**2 + noise) - scale**2


def covered(problem, repeats, steps, sizes, scale, noise, level=0.9):
    """The share of repeats whose interval holds the truth, and of those that are resolved."""
    generator = np.random.default_rng(15)
    inside = resolved = 0
    for _ in range(repeats):
        examples, gradient_squared, trace = problem(generator, steps, 1, sum(sizes), scale, noise)
        total = sum(sizes)
        cuts = np.cumsum([0, *sizes])
        parts = np.stack([examples[:, a:b].sum(1) / total for a, b in itertools.pairwise(cuts)])
        squares = ((parts**2).sum(2) / np.array(sizes)[:, None]).sum(0)
        wholes = (parts.sum(0) ** 2).sum(1)
        blocks = NoiseBlocks()
        for square, whole in zip(squares, wholes, strict=True):
            blocks.add(step_noise(len(sizes), square, whole, total))
        estimate = blocks.estimate(level)
        truth = trace / gradient_squared
        inside += estimate.low <= truth <= (math.inf if estimate.high is None else estimate.high)
        resolved += estimate.resolved
    return inside / repeats, resolved / repeats


CASES = [
    (quadratic, (8, 8, 8, 8), 1.0, 1.0, 100),  # B_simple 8 against a minibatch of 32
    (quadratic, (4, 4, 8, 16), 1.0, 8.0, 105),  # units of unequal sizes, a last block of 15 steps
    (quadratic, (8, 8, 8, 8), 1.0, 100.0, 100),  # B_simple 800: |G|^2 is mostly not resolved
    (linear, (4, 4, 4, 4), 1.0, 0.5, 100),
    (linear, (8, 8), 1.0, 8.0, 200),
]


@pytest.mark.parametrize(("problem", "sizes", "scale", "noise", "steps"), CASES)
def test_a_90_percent_interval_covers_the_truth_in_90_percent_of_repeats(problem, sizes, scale, noise, steps):
    share, resolved = covered(problem, 1000, steps, sizes, scale, noise)
    assert 0.875 <= share <= 0.925
    assert (resolved < 0.5) == (noise == 100.0)


def test_steps_that_are_alike_need_blocks():
    """With a slow drift of |G|^2 from step to step, blocks keep what single steps' spread would not."""
    generator = np.random.default_rng(1)
    inside = 0
    for _ in range(300):
        drift = np.zeros(400)
        for step in range(1, 400):
            drift[step] = 0.6 * drift[step - 1] + generator.standard_normal()
        blocks = NoiseBlocks()
        for value in drift:
            blocks.add(StepNoise(10 + value, 50 + 0.1 * generator.standard_normal()))
        estimate = blocks.estimate()
        inside += estimate.low <= 5 <= estimate.high
    assert inside / 300 > 0.82  # single steps, taken as independent, give 0.59


def test_what_is_not_resolved_is_said_and_never_clipped():
    blocks = NoiseBlocks()
    for number in range(40):
        blocks.add(StepNoise(-0.1 + (0.5 if number // 10 % 2 else -0.5), 3.0 + 0.01 * number))
    estimate = blocks.estimate()
    assert estimate.gradient_squared == pytest.approx(-0.1)
    assert (estimate.noise_scale, estimate.high, estimate.resolved) == (None, None, False)
    assert estimate.low > 0  # tr S is large against the most that |G|^2 may be
    assert estimate.as_json() == {
        "noise_scale": None, "interval": [estimate.low, None], "gradient_squared": estimate.gradient_squared,
        "trace": estimate.trace, "resolved": False,
    }  # fmt: skip
    assert "not resolved" in estimate.sentence()


def test_fewer_than_two_blocks_have_no_interval():
    blocks = NoiseBlocks()
    assert blocks.estimate() is None
    for _ in range(2 * BLOCK_STEPS - 1):
        blocks.add(StepNoise(2.0, 6.0))
    estimate = blocks.estimate()
    assert (estimate.noise_scale, estimate.low, estimate.high, estimate.resolved) == (3.0, 0.0, None, False)
    blocks.add(StepNoise(2.0, 6.0))
    assert blocks.estimate().resolved


def test_a_ratio_of_sure_means_is_sure_and_one_over_zero_is_not():
    nothing = Covariance(0.0, 0.0, 0.0)
    assert ratio_interval(StepNoise(2.0, 6.0), nothing, 5) == (3.0, 3.0)
    assert ratio_interval(StepNoise(0.0, 6.0), nothing, 5) == (0.0, None)
    assert ratio_interval(StepNoise(-2.0, 6.0), nothing, 5) == (0.0, None)
    # Fieller by hand: (6 - 2 R)^2 <= t^2 (0.04 + 0.01 R^2), t = 2.015
    low, high = ratio_interval(StepNoise(2.0, 6.0), Covariance(0.01, 0.0, 0.04), 5)
    for end in (low, high):
        assert (6 - 2 * end) ** 2 == pytest.approx(2.015048373**2 * (0.04 + 0.01 * end**2), rel=1e-8)
    assert low < 3 < high


def test_blocks_go_on_from_what_was_written_and_join_when_there_are_many():
    generator = np.random.default_rng(0)
    values = [StepNoise(*pair) for pair in generator.uniform(1, 2, (1234, 2))]
    straight, first = NoiseBlocks(), NoiseBlocks()
    for value in values:
        straight.add(value)
    for value in values[:567]:
        first.add(value)
    second = NoiseBlocks(json.loads(json.dumps(first.sums)))
    for value in values[567:]:
        second.add(value)
    assert second.sums == straight.sums
    assert (second.steps, second.estimate()) == (1234, straight.estimate())
    joined = straight._long_blocks()
    assert len(joined) == 30
    assert sum(block.steps for block in joined) == 1234
    assert min(block.steps for block in joined) >= BLOCK_STEPS
