"""Gradients sent in 16 bits: what else is summed is not, float16 is scaled exactly, an overflow costs no update."""

import pytest
import torch
from support.wires import aggregated
from support.worlds import in_world

from batchscale.aggregate.wire import Wire

STEPS = [1.0, 1e-6, 1e-6, 3e-3]
"""The last one is 3,000 times the one before: too large for its scale."""


def steps_of(size, wire, algorithm, scales=STEPS):
    """Of every step: attempts, and the sums of each kind, which all ranks hold alike."""
    ranks = in_world(size, aggregated, wire, algorithm, scales)
    for steps in ranks[1:]:
        for step, first in zip(steps, ranks[0], strict=True):
            assert step[0] == first[0]
            for mine, theirs in zip(step[1:], first[1:], strict=True):
                assert torch.equal(mine.nan_to_num(), theirs.nan_to_num())  # no NaN equals itself
    return ranks[0]


@pytest.mark.parametrize(("size", "algorithm"), [(2, "shared_memory"), (3, "ring"), (2, "builtin")])
def test_gradients_are_rounded_and_what_rides_with_them_is_not(size, algorithm):
    plain = steps_of(size, None, algorithm)
    for wire, unit in [(torch.bfloat16, 2.0**-8), (torch.float16, 2.0**-11)]:
        narrow = steps_of(size, wire, algorithm)
        for step, (sent, expected) in enumerate(zip(narrow, plain, strict=True)):
            assert torch.equal(sent[2], expected[2])  # the loss: 1 + 2^-20 has 21 bits
            assert torch.equal(sent[3], expected[3])  # a count above 2^20
            scale = 3 * STEPS[step] * size
            in_float32 = wire is torch.float16 and step in (0, 3)  # no scale yet, and the overflow
            error = (sent[1] - expected[1]).abs().max() / scale
            # Float32, too, adds in another order where buckets are cut at other places.
            assert error <= (2.0**-22 if in_float32 else 2 * size * unit)
            assert in_float32 or error > 2.0**-20
            assert sent[0] == 1 + (wire is torch.float16 and step == 3)


def test_small_gradients_do_not_vanish_and_the_scale_rounds_nothing():
    """float16 alone makes 1e-6 a number of 4 bits, and 1e-9 zero."""
    scales = [2.0**-20, 2.0**-20]
    (_, first, *_), (_, second, *_) = steps_of(2, torch.float16, "ring", scales)
    (_, _, *_), (_, expected, *_) = steps_of(2, None, "ring", scales)
    large = expected.abs() > 1e-5 * expected.abs().max()
    assert ((second - expected).abs()[large] <= 2.0**-10 * 3 * 2.0**-20).all()
    # The same gradients 2^20 times as large: the same bits, 2^20 times as large.
    (_, _, *_), (_, larger, *_) = steps_of(2, torch.float16, "ring", [1.0, 1.0])
    assert torch.equal(larger * 2.0**-20, second)
    assert first.isfinite().all()


@pytest.mark.parametrize("wire", [None, torch.bfloat16, torch.float16])
def test_a_gradient_that_is_not_finite_stays_so(wire):
    """A step in float32 that is not finite stands: the run decides about it."""
    steps = steps_of(2, wire, "shared_memory", [1.0, float("inf"), 1.0])
    assert [attempts for attempts, *_ in steps] == [1, 1 + (wire is torch.float16), 1]
    assert [bool(gradients.isfinite().all()) for _, gradients, *_ in steps] == [True, False, True]


def test_the_scale_is_the_power_of_two_that_brings_the_largest_below_2_to_the_8():
    wire = Wire(torch.float16)
    for largest in (1.0, 1.5, 2.0, 1e-30, 6e4, 1e30, 2.0**-140):
        assert wire.ended(torch.tensor([0.0, -largest, largest / 2]))
        wire.begin()
        assert wire.now is torch.float16
        assert wire._exponent == 100 or 2.0**7 <= largest * 2.0**wire._exponent < 2.0**8
    for nothing in ([0.0, 0.0], [float("nan"), 1.0], [float("-inf")]):
        wire.ended(torch.tensor(nothing))
        wire.begin()
        assert wire.now is None
    assert Wire(torch.bfloat16).now is torch.bfloat16
