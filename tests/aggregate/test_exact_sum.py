"""Sums in digits: exact, in any order, in float32 places."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from batchscale.aggregate.exact_sum import Digits, squared_norm, value_of

CPU = torch.device("cpu")


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(1e-50, 1e70), min_size=1, max_size=20), st.sampled_from([1, 2, 3, 4096, 5000]))
def test_a_sum_of_digits_is_the_exact_sum_rounded_once(numbers, most):
    digits = Digits(max(most, len(numbers)), CPU)
    total = torch.zeros(digits.length)  # float32: as the buffer beside the gradient
    for number in numbers:
        total += digits.of(torch.tensor(number, dtype=torch.float64))
    assert value_of(total.tolist(), digits.bits) == float(sum(map(Fraction, numbers)))


def test_as_many_numbers_as_were_announced_lose_nothing():
    """4096 numbers whose digits are all the largest there are."""
    digits = Digits(4096, CPU)
    number = torch.tensor(1 - 2.0**-53, dtype=torch.float64)
    total = torch.zeros(digits.length)
    for _ in range(4096):
        total += digits.of(number)
    assert value_of(total.tolist(), digits.bits) == 4096 * float(number)


def test_what_is_not_finite_stays_so_and_nothing_is_nothing():
    digits = Digits(4, CPU)
    for number in (math.nan, math.inf):
        assert not digits.of(torch.tensor(number, dtype=torch.float64)).isfinite().all()
    assert value_of([0.0] * digits.length, digits.bits) == 0.0


@pytest.mark.parametrize("length", [1, 1000, (1 << 18) + 7])
def test_a_squared_norm_is_that_of_float64_wherever_the_values_lie(length):
    values = torch.randn(length + 5, generator=torch.Generator().manual_seed(0)) * 1e-20  # float32 squares vanish
    here, there = values[:length].clone(), values.new_zeros(length + 3)[3:].copy_(values[:length])
    expected = math.fsum(value * value for value in here.tolist())
    assert float(squared_norm(here)) == pytest.approx(expected, rel=1e-13)
    assert torch.equal(squared_norm(here), squared_norm(there))
