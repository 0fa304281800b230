"""The statistics of branches on made-up losses: tests over seeds, half efficiency, the evaluation set's share."""

import math
import random
import statistics

import pytest
from scipy.stats import ttest_1samp

from batchscale.study.branch.curve import BranchCurve
from batchscale.study.branch.efficiency import Crossing, crossing, examples_to, half_efficiency
from batchscale.study.branch.paired import (
    difference,
    examples_that_would_do,
    largest_without_loss,
    set_error,
    t_interval,
)
from batchscale.study.branch.verdicts import critical_of
from batchscale.study.branch.window import Window


def test_the_interval_and_the_verdict_are_those_of_a_one_sided_t_test():
    generator = random.Random(0)
    for _ in range(50):
        values = [generator.gauss(0.0, 0.02) for _ in range(5)]
        each = difference(2, dict(enumerate(values)), dict.fromkeys(range(5), 0.0))
        assert each.interval == pytest.approx(ttest_1samp(values, 0.0).confidence_interval(0.90), rel=1e-9)
        for tolerance in (-0.01, 0.0, 0.01, 0.03):
            below = ttest_1samp(values, tolerance, alternative="less").pvalue < 0.05
            above = ttest_1samp(values, tolerance, alternative="greater").pvalue < 0.05
            assert each.verdict(tolerance) == ("passed" if below else "worse" if above else "not told")


def test_pairs_are_of_one_seed_and_seeds_without_a_pair_count_for_nothing():
    each = difference(4, {1: 2.5, 2: 3.0, 4: 9.0}, {1: 2.0, 2: 2.0, 3: 2.0, 4: math.inf})
    assert each.by_seed == {1: 0.5, 2: 1.0}
    assert (each.mean, each.interval, each.verdict(5.0)) == (0.75, None, "not told")


def fixed(means, spread=0.001, seeds=5):
    """Differences with these means, and deviations over the seeds that sum to nothing."""
    wiggles = [spread * (place - (seeds - 1) / 2) for place in range(seeds)]
    return [
        difference(factor, {s: mean + w for s, w in enumerate(wiggles)}, dict.fromkeys(range(seeds), 0.0))
        for factor, mean in means.items()
    ]


@pytest.mark.parametrize(
    ("means", "largest", "worse"),
    [
        ({2: 0.0, 4: 0.005, 8: 0.05}, 4, 8),
        ({2: 0.05, 4: 0.0, 8: 0.0}, 1, 2),  # stopped at the first failure, whatever follows
        ({2: 0.0, 4: 0.0105, 8: 0.0, 16: 0.2}, 2, 16),  # 4 is neither: its interval holds the tolerance
        ({2: 0.0, 4: -0.1, 8: 0.009}, 4, None),
        ({2: 0.0, 4: 0.0, 8: 0.0}, 8, None),
        ({2: 0.0, 4: math.inf}, 2, 4),
    ],
)
def test_the_factors_are_tested_in_a_fixed_sequence(means, largest, worse):
    found = largest_without_loss(fixed(means), 0.01)
    assert (found.largest, found.worse) == (largest, worse)


def test_the_error_rate_of_the_fixed_sequence_is_five_percent():
    """Every factor exactly at the tolerance: to pass any is an error, and happens in about one of twenty repeats."""
    generator, wrong = random.Random(1), 0
    for _ in range(2000):
        rows = [
            difference(f, {s: generator.gauss(0.01, 0.005) for s in range(5)}, dict.fromkeys(range(5), 0.0))
            for f in (2, 4, 8)
        ]
        wrong += largest_without_loss(rows, 0.01).largest > 1
    assert 0.04 < wrong / 2000 < 0.06


def test_fewer_than_three_seeds_have_no_interval_and_tell_nothing():
    assert t_interval([0.0, 0.1]) is None
    found = largest_without_loss(fixed({2: 0.0, 4: 1.0}, seeds=2), 0.01)
    assert (found.largest, found.worse) == (None, None)


def test_the_examples_to_a_loss_are_those_of_the_first_passage():
    path = [(0, 3.0), (100, 2.0), (200, 2.2), (300, 1.0)]
    assert examples_to(path, 2.5) == pytest.approx(50)
    assert examples_to(path, 2.0) == 100
    assert examples_to(path, 1.6) == pytest.approx(250)
    assert examples_to(path, 0.9) is None
    assert examples_to(path[1:], 2.0) == 100
    assert examples_to([(10, math.inf), (20, 1.0)], 1.5) == 20


def test_a_hyperbola_crosses_twice_the_examples_at_b_crit_and_two_of_the_trunks_minibatch():
    """E = E_min (1 + B / B_crit), B_crit = 40, kn = 16: r = 2 at B = 40 + 2 x 16, the line between factors exact."""
    ratios = {f: (1 + 16 * f / 40) / (1 + 16 / 40) for f in (1, 2, 4, 8)}
    found = crossing(ratios)
    assert (found.low, found.high) == (4, 8)
    assert found.point * 16 == pytest.approx(40 + 2 * 16, rel=1e-12)
    beyond = crossing({**ratios, 8: math.inf})  # not reached in twice the window: on the line through those before
    assert beyond.point * 16 == pytest.approx(72, rel=1e-12)
    assert (found.bracketed, beyond.bracketed) == (False, True)
    assert (found.ends(), beyond.ends()) == ((found.point, found.point), (4.0, 8.0))


def test_what_is_not_reached_bounds_the_crossing():
    assert crossing({1: 1.0, 2: math.inf}) == Crossing(1, 2, pytest.approx(math.sqrt(2)), bracketed=True)
    assert crossing({1: 1.0, 2: 0.9, 4: 1.5}) == Crossing(4, None, None)
    steep = crossing({1: 1.0, 2: 1.01, 4: math.inf})
    assert (steep.low, steep.high, steep.point) == (2, 4, 4.0)  # the line leads beyond: clipped
    assert crossing({1: 1.0, 2: 3.0, 4: 1.2}).high == 2  # the first passage, rising


def test_half_efficiency_is_a_geometric_mean_with_an_interval_over_seeds():
    logs = [1.0, 1.2, 1.5, 1.1]
    found = half_efficiency([Crossing(2, 8, math.exp(value)) for value in logs])
    assert found.factor == pytest.approx(math.exp(statistics.fmean(logs)))
    assert found.interval == pytest.approx(tuple(map(math.exp, t_interval(logs))))
    open_above = half_efficiency([Crossing(2, 4, 3.0), Crossing(4, 8, 5.0), Crossing(8, None, None)])
    assert (open_above.factor, open_above.interval) == (None, (2.0, None))
    guessed = half_efficiency([Crossing(2, 4, 3.0, bracketed=True)] * 3)  # the seeds agree, and tell no more than this
    assert (guessed.factor, guessed.bracketed) == (pytest.approx(3.0), 3)
    assert guessed.interval == pytest.approx((2.0, 4.0))
    assert half_efficiency([]).seeds == 0
    assert half_efficiency([Crossing(2, 4, 3.0)] * 2).interval is None


def test_the_evaluation_sets_share_of_the_error_is_that_of_independent_chunks():
    generator = random.Random(2)
    errors, means = [], []
    for _ in range(400):
        chunks = [(32, generator.gauss(0.0, 0.1)) for _ in range(20)]
        errors.append(set_error(chunks) ** 2)
        means.append(statistics.fmean(value for _, value in chunks))
    assert statistics.fmean(errors) == pytest.approx(0.1**2 / 20, rel=0.1)
    assert statistics.pvariance(means) == pytest.approx(statistics.fmean(errors), rel=0.2)
    assert set_error([(32, 0.1)] * 3) is None
    assert examples_that_would_do(640, 0.01, 0.0165) is None
    assert examples_that_would_do(640, 0.02, 0.01) == math.ceil(640 * (1.6448536 * 2) ** 2)


def made(losses, seeds=(1, 2, 3)):
    """Curves of made-up branches: factor -> loss at half of the window, and at its end, with a little of every seed."""
    return {
        ("branch", 10, "sqrt", factor, 1.0): {
            seed: BranchCurve("done", "", {0: 3.0, 64: half + 1e-4 * seed * factor, 128: end + 1e-4 * seed * factor})
            for seed in seeds
        }
        for factor, (half, end) in losses.items()
    }


def test_a_verdict_that_changes_between_the_last_two_windows_is_unsettled():
    window = Window(8, (1, 2, 4), 128)
    settled = critical_of(made({1: (2.0, 1.5), 2: (2.0, 1.5), 4: (2.2, 1.7)}), window, 10, "sqrt", 1.0)
    assert (settled.whole.no_loss.largest, settled.earlier.no_loss.largest, settled.settled) == (2, 2, True)
    changed = critical_of(made({1: (2.0, 1.5), 2: (2.0, 1.5), 4: (2.2, 1.5)}), window, 10, "sqrt", 1.0)
    assert (changed.whole.no_loss.largest, changed.earlier.no_loss.largest, changed.settled) == (4, 2, False)
    assert changed.whole.tolerance == pytest.approx(0.01 * 1.5, rel=1e-3)


def test_points_are_multiples_of_every_factor_and_averages_are_alike_in_examples():
    window = Window(16, (1, 2, 8), 8192)
    assert window.points == (1024, 2048, 3072, 4096, 5120, 6144, 7168, 8192)
    assert window.half == 4096
    assert window.decay(128) == pytest.approx(window.decay(16) ** 8, rel=1e-12)
    assert window.decay(16) ** (window.half_life / 16) == pytest.approx(0.5)
    uneven = Window(16, (1, 2, 8), 128 * 5)
    assert all(point % 128 == 0 for point in uneven.points)
    assert (uneven.points[-1], uneven.half) == (640, 256)
    assert Window(4, (1, 4), 16).half is None


def test_half_efficiency_counts_the_examples_beyond_the_window():
    """Factor 1 has loss 1 at 128; factor 2 at 192, factor 4 at 320, past twice the window: r = 1.5 and none."""
    paths = {1: {0: 3.0, 128: 1.0}, 2: {0: 3.0, 128: 1.5, 192: 1.0}, 4: {0: 3.0, 128: 2.0, 256: 1.5, 320: 1.0}}
    curves = {
        ("branch", 10, "sqrt", factor, 1.0): {s: BranchCurve("done", "", losses, went_on=True) for s in (1, 2, 3)}
        for factor, losses in paths.items()
    }
    half = critical_of(curves, Window(8, (1, 2, 4), 128), 10, "sqrt", 1.0).whole.half
    assert half.factor == pytest.approx(3.0)  # r = 1, 1.5, then on the same line to 2
    assert half.interval == pytest.approx((2.0, 4.0))  # factor 4 never had the loss: the line is a guess between them


def test_a_loss_that_no_longer_falls_tells_no_half_efficiency():
    """Factor 1 has its last loss at 32 of 128 examples already, by noise: r of factor 2 would be 4."""
    paths = {1: {0: 3.0, 32: 1.0, 64: 1.1, 128: 1.0}, 2: {0: 3.0, 64: 1.2, 128: 1.0}}
    curves = {
        ("branch", 10, "sqrt", f, 1.0): {s: BranchCurve("done", "", path) for s in (1, 2, 3)}
        for f, path in paths.items()
    }
    half = critical_of(curves, Window(8, (1, 2), 128), 10, "sqrt", 1.0).whole.half
    assert (half.factor, half.seeds) == (None, 0)
