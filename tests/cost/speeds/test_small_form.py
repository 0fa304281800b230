"""The small form: right about series that follow it, and careful beyond."""

import numpy as np
import pytest
from scipy import stats
from support.speeds import drawn, row, write

from batchscale.cost.speeds.priors import fit_priors
from batchscale.cost.speeds.series import read_series
from batchscale.cost.speeds.small_form import Medians, log_likelihood, predict, steps_of

MEDIANS = Medians(doubling=0.03, jitter=0.01, leaving=0.05)


def series_of(tmp_path, rows):
    return read_series([write(tmp_path / "a.csv", rows)])


def ends(hosts, log_seconds, others, medians=MEDIANS):
    return predict(medians, np.array(hosts, float), np.array(log_seconds), np.array(others, float))


@pytest.mark.parametrize("hosts", [(1, 2, 4, 8, 16), (2, 4, 8, 16, 32), (1, 3, 12, 50, 100)])
def test_nine_of_ten_series_that_follow_the_form_lie_in_the_interval(tmp_path, hosts):
    generator = np.random.default_rng(3)
    within, above = [], []
    for series in series_of(tmp_path, drawn(generator, 300, hosts)):
        low, middle, high = ends(series.hosts[:2], series.log_seconds[:2], series.hosts[2:]).T
        within.append((low <= series.log_seconds[2:]) & (series.log_seconds[2:] <= high))
        above.append(series.log_seconds[2:] > middle)
    assert abs(np.mean(within) - 0.9) < 0.03  # 3 standard errors of 300 series are 0.05
    assert abs(np.mean(above) - 0.5) < 0.06


def test_medians_come_out_of_the_fit_that_went_in(tmp_path):
    generator = np.random.default_rng(5)
    rows = [r for source in "ab" for r in drawn(generator, 150, source=source)]
    medians = fit_priors(series_of(tmp_path, rows)).medians
    assert medians.doubling == pytest.approx(0.03, rel=0.12)
    assert medians.jitter == pytest.approx(0.01, rel=0.12)
    assert medians.leaving == pytest.approx(0.05, rel=0.4)


def test_too_few_series_or_sources_are_no_priors(tmp_path):
    generator = np.random.default_rng(7)
    assert fit_priors(series_of(tmp_path, drawn(generator, 40))) is None
    few = [r for source in "ab" for r in drawn(generator, 4, source=source)]
    assert fit_priors(series_of(tmp_path, few)) is None


def test_the_interval_widens_with_the_doublings_and_the_prediction_goes_on_from_the_last_point():
    rows = ends([1, 2], [0.0, 0.1], [4, 64, 4096])
    widths = rows[:, 2] - rows[:, 0]
    assert widths[0] < widths[1] < widths[2]
    shifted = ends([1, 2], [0.0, 0.3], [4, 64, 4096])
    np.testing.assert_allclose(shifted, rows + 0.2, atol=1e-9)  # what leaving the host cost says nothing of later


def test_a_step_beyond_the_first_host_teaches_the_next():
    slow, quick = (ends([2, 4], [0.0, step], [8])[0, 1] - step for step in (0.08, 0.0))
    assert slow > 1.5 * quick > 0


def test_leaving_the_host_costs_only_where_it_is_left():
    inside, beyond = ends([1], [0.0], [2]), ends([2], [0.0], [4])
    assert inside[0, 1] > beyond[0, 1] + 0.03
    np.testing.assert_allclose(ends([0.5], [0.0], [2]), inside)  # measured within a host: as if at one host


def test_steps_are_those_that_end_beyond_the_first_host():
    steps = steps_of(np.array([0.125, 1, 2, 8]), np.array([0.0, 0.5, 0.6, 0.7]))
    np.testing.assert_allclose(steps.log_ratio, [0.1, 0.1])
    np.testing.assert_allclose(steps.doublings, [1, 2])
    assert steps.leaves.tolist() == [1, 0]


def test_the_likelihood_of_several_series_is_the_sum_of_each(tmp_path):
    generator = np.random.default_rng(11)
    steps = [steps_of(one.hosts, one.log_seconds) for one in series_of(tmp_path, drawn(generator, 5))]
    onward = [its.those(leaving=False) for its in steps]
    together = log_likelihood(MEDIANS, onward)
    assert together == pytest.approx(sum(log_likelihood(MEDIANS, [its]) for its in onward), rel=1e-12)


def test_the_likelihood_is_that_of_a_plain_integral():
    steps = steps_of(np.array([2.0, 4.0, 16.0]), np.array([0.0, 0.05, 0.08]))
    z = np.linspace(-5, 5, 801)
    doubling, jitter = np.meshgrid(0.03 * 2**z, 0.01 * 2**z, indexing="ij")
    density = np.outer(stats.norm.pdf(z), stats.norm.pdf(z))
    for ratio, x in zip(steps.log_ratio, steps.doublings, strict=True):
        density *= stats.norm.pdf(ratio, doubling * x, jitter * np.sqrt(x))
    exact = density.sum() * (z[1] - z[0]) ** 2
    assert log_likelihood(MEDIANS, [steps]) == pytest.approx(np.log(exact), abs=0.02)


def test_one_row_makes_a_series_without_steps(tmp_path):
    (series,) = series_of(tmp_path, [row(8, 80)])
    assert len(steps_of(series.hosts, series.log_seconds).doublings) == 0
