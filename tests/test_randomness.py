"""Keyed random numbers: fixed for ever, independent of order, and random enough."""

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscale.randomness import bits, integers, key, normal, shuffled, uniform

SOURCE = Path(__file__).parents[1] / "src"


def test_golden_values_never_change():
    assert key(0) == 10451216379200822465
    assert key(1, 2, 3) != key(3, 2, 1)
    assert shuffled(key(7), np.arange(10), 10).tolist() == GOLDEN_SHUFFLE
    assert uniform(key(1), np.arange(3)).tolist() == GOLDEN_UNIFORM


GOLDEN_SHUFFLE = [2, 1, 4, 5, 7, 0, 8, 6, 9, 3]
GOLDEN_UNIFORM = [0.7975955893613592, 0.24456920751817957, 0.630842129764008]


@given(st.integers(1, 3000), st.integers(0, 2**63))
def test_a_shuffle_holds_every_image_once(size, seed):
    assert np.array_equal(np.sort(shuffled(key(seed), np.arange(size), size)), np.arange(size))


@given(st.integers(2, 500), st.data())
def test_any_part_of_a_shuffle_is_that_part_of_the_whole(size, data):
    positions = np.array(data.draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=20)))
    whole = shuffled(key(5, 1), np.arange(size), size)
    assert np.array_equal(shuffled(key(5, 1), positions, size), whole[positions])


def test_shuffles_of_small_sets_are_uniform():
    """Every one of the 24 orders of 4 images, over 24,000 keys: chi-square with 23 degrees of freedom."""
    seen: dict[tuple[int, ...], int] = {}
    for seed in range(24_000):
        order = tuple(shuffled(key(seed, 9), np.arange(4), 4).tolist())
        seen[order] = seen.get(order, 0) + 1
    assert len(seen) == 24
    assert sum((n - 1000) ** 2 / 1000 for n in seen.values()) < 60  # beyond it with probability 4e-5


def test_neighbours_in_a_shuffle_are_unrelated():
    order = shuffled(key(3), np.arange(60_000), 60_000).astype(float)
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.02
    assert abs(np.corrcoef(order, np.arange(60_000))[0, 1]) < 0.02
    other = shuffled(key(4), np.arange(60_000), 60_000).astype(float)
    assert abs(np.corrcoef(order, other)[0, 1]) < 0.02


def test_uniform_numbers_are_uniform():
    draws = uniform(key(11), np.arange(100_000))
    assert 0 <= draws.min() < 1e-4
    assert 1 - 1e-4 < draws.max() < 1
    counts, _ = np.histogram(draws, bins=100, range=(0, 1))
    assert ((counts - 1000) ** 2 / 1000).sum() < 160  # chi-square, 99 degrees of freedom
    whole = integers(key(11), np.arange(90_000), 9)
    assert set(whole.tolist()) == set(range(9))
    assert ((np.bincount(whole) - 10_000) ** 2 / 10_000).sum() < 35


@pytest.mark.parametrize("shift", [1, 8, 32])
def test_every_output_bit_is_fair_and_keys_differ(shift):
    a, b = bits(key(1), np.arange(20_000)), bits(key(1 + shift), np.arange(20_000))
    differing = np.unpackbits((a ^ b).view(np.uint8)).mean()
    assert abs(differing - 0.5) < 0.005
    for position in range(64):
        assert abs(float(((a >> np.uint64(position)) & np.uint64(1)).mean()) - 0.5) < 0.02


def test_normal_numbers_are_normal_and_fixed():
    draws = normal(key(13), np.arange(100_000))
    assert abs(draws.mean()) < 0.015  # 4.7 standard errors
    assert abs(draws.std() - 1) < 0.01
    for bound, inside in ((0.6744897501960817, 0.5), (1.959963984540054, 0.95)):
        assert abs((abs(draws) < bound).mean() - inside) < 0.008
    assert normal(key(13), np.array([7, 3])).tolist() == draws[[7, 3]].tolist()


def test_every_stream_is_one_purpose_s_own():
    """Two purposes of one number would draw the same random numbers under the same keys."""
    lines = [line for file in sorted(SOURCE.rglob("*.py")) for line in file.read_text().splitlines()]
    marked = [re.match(r"_?[A-Z_, ]+ = ([\d, ]+)  # streams?\b", line) for line in lines]
    numbers = [int(number) for match in marked if match for number in match[1].split(",")]
    assert len(numbers) > 15
    assert sorted(numbers) == sorted(set(numbers))
