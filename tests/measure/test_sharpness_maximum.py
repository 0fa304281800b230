"""The highest value in a box: closed forms of linear and separable functions, in the full space and a subspace."""

import numpy as np
import pytest

from batchscale.measure.sharpness.boxes import Box
from batchscale.measure.sharpness.directions import Directions
from batchscale.measure.sharpness.maximum import maximum

ENOUGH = 200


def separable(curvatures, centre):
    """f(y) = sum h_i (y_i + c_i)^2 / 2, with its gradient."""
    return lambda y: (0.5 * (curvatures * (y + centre) ** 2).sum(), curvatures * (y + centre))


def highest_of_separable(curvatures, centre, bounds):
    """Each variable alone: at a side of the box, or where a downward parabola has its top."""
    places = np.stack([-bounds, bounds, np.clip(-centre, -bounds, bounds)])
    return (0.5 * curvatures * (places + centre) ** 2).max(0).sum()


@pytest.fixture
def draws():
    return np.random.default_rng(0)


def test_a_linear_function_is_highest_at_its_corner_after_one_iteration(draws):
    slope, bounds = draws.standard_normal(50), draws.uniform(0.001, 2, 50)
    search = maximum(lambda y: (slope @ y + 3, slope), bounds, 10)
    assert (search.start, search.highest) == pytest.approx((3, 3 + np.abs(slope) @ bounds), rel=1e-14)
    assert (search.iterations, search.limited, search.at_bound) == (1, False, 1.0)


@pytest.mark.parametrize("size", [1e-9, 1.0, 1e9])
def test_an_upward_parabola_is_highest_in_the_corner_away_from_its_centre(draws, size):
    """Whatever the size of the function: one that is small beside the box would else move one variable at a time."""
    curvatures, centre, bounds = (
        size * draws.uniform(0.1, 3, 400),
        draws.standard_normal(400),
        draws.uniform(0.1, 2, 400),
    )
    search = maximum(separable(curvatures, centre), bounds, 10)
    truth = (0.5 * curvatures * (np.abs(centre) + bounds) ** 2).sum()
    assert search.highest == pytest.approx(truth, rel=1e-12)
    assert highest_of_separable(curvatures, centre, bounds) == pytest.approx(truth, rel=1e-12)
    assert search.at_bound == 1


def test_a_plain_search_of_a_flat_function_stays_far_from_the_sides(draws):
    """Each iteration ends where the first variable meets its bound; scaled, the first one reaches the corner."""
    slope, bounds = 1e-6 * draws.uniform(0.1, 3, 400), np.ones(400)
    truth = slope.sum()
    plain = maximum(lambda y: (slope @ y, slope), bounds, 10, plain=True)
    scaled = maximum(lambda y: (slope @ y, slope), bounds, 10)
    assert scaled.highest == pytest.approx(truth, rel=1e-12)
    assert plain.highest < 0.8 * truth
    steep = maximum(lambda y: (1e6 * slope @ y, 1e6 * slope), bounds, 10, plain=True)
    assert steep.highest == pytest.approx(1e6 * truth, rel=1e-12)


def test_a_top_within_the_box_is_met_and_the_limit_is_told(draws):
    curvatures, centre, bounds = draws.standard_normal(50), draws.standard_normal(50), draws.uniform(0.1, 2, 50)
    truth = highest_of_separable(curvatures, centre, bounds)
    searches = [maximum(separable(curvatures, centre), bounds, limit) for limit in (1, 3, 10, ENOUGH)]
    assert [search.limited for search in searches] == [True, True, True, False]
    assert [search.iterations for search in searches[:3]] == [1, 3, 10]
    values = [search.highest for search in searches]
    assert values == sorted(values)
    assert values[-1] == pytest.approx(truth, rel=1e-6)
    assert values[2] > 0.99 * truth


def test_from_a_stationary_point_a_search_still_climbs(draws):
    """A minimum, where the gradient is zero."""
    curvatures, bounds = draws.uniform(0.1, 3, 30), draws.uniform(0.1, 2, 30)
    search = maximum(separable(curvatures, np.zeros(30)), bounds, ENOUGH)
    assert search.start == 0
    assert search.highest == pytest.approx((0.5 * curvatures * bounds**2).sum(), rel=1e-12)


def test_where_no_point_is_higher_the_start_is_the_highest(draws):
    search = maximum(separable(-draws.uniform(0.1, 3, 30), np.zeros(30)), np.ones(30), 10)
    assert search.highest == search.start == 0
    constant = maximum(lambda y: (2.0, np.zeros(30)), np.ones(30), 10)
    assert constant.highest == constant.start == 2.0


def test_a_box_without_width_is_its_one_point():
    search = maximum(lambda y: (y.sum() + 1, np.ones(3)), np.zeros(3), 10)
    assert search.highest == search.start == 1


@pytest.mark.parametrize("form", ["keskar", "adaptive"])
@pytest.mark.parametrize("count", [None, 7])
def test_a_linear_functions_maximum_in_each_box(draws, form, count):
    """f(w) = g' w: in the full space sum |g_i| b_i, in a subspace sum over its directions of |a_j' g| b_j."""
    slope, weights = draws.standard_normal(60), draws.standard_normal(60)
    directions = None if count is None else Directions(60, count, 0)
    box = Box(form, weights, directions)
    matrix = np.eye(60) if directions is None else np.stack([directions.moved(unit) for unit in np.eye(count)], 1)
    sides = np.abs(np.linalg.pinv(matrix) @ weights) + 1
    if form == "adaptive":
        matrix, sides = np.abs(weights)[:, None] * matrix, np.ones(matrix.shape[1])
    search = maximum(lambda y: (slope @ box.point(y), box.pulled(slope)), 0.01 * box.sides, 10)
    assert search.start == pytest.approx(slope @ weights, rel=1e-12)
    assert search.highest - search.start == pytest.approx(np.abs(matrix.T @ slope) @ (0.01 * sides), rel=1e-5)


def test_directions_are_of_n01_and_each_draw_another_one():
    numbers = np.stack([Directions(4000, 5, draw).moved(unit) for draw in (0, 1) for unit in np.eye(5)])
    assert np.array_equal(numbers[:5], np.stack([Directions(4000, 5, 0).moved(unit) for unit in np.eye(5)]))
    assert np.abs(numbers.mean(1)).max() < 4 / np.sqrt(4000)
    assert np.abs(numbers.var(1) - 1).max() < 4 * np.sqrt(2 / 4000)
    correlations = np.corrcoef(numbers) - np.eye(10)
    assert np.abs(correlations).max() < 5 / np.sqrt(4000)


def test_products_and_coordinates_over_several_blocks(draws, monkeypatch):
    monkeypatch.setattr("batchscale.measure.sharpness.directions._BLOCK", 16)
    directions = Directions(100, 6, 3)
    matrix = np.stack([directions.moved(unit) for unit in np.eye(6)], 1)
    vector = draws.standard_normal(100)
    assert directions.products(vector) == pytest.approx(matrix.T @ vector, rel=1e-5, abs=1e-5)
    assert directions.coordinates(vector) == pytest.approx(np.linalg.pinv(matrix) @ vector, rel=1e-9)
    assert directions.moved(np.arange(6.0)) == pytest.approx(matrix @ np.arange(6.0), rel=1e-5)
