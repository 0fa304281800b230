"""k x n arithmetic, the plan of steps."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscale.errors import RecipeError
from batchscale.minibatch import Minibatch, StepPlan


@pytest.mark.parametrize("bad", [0, -1, 3.5, "8", True])
def test_workers_and_images_are_whole_and_positive(bad):
    with pytest.raises(RecipeError, match=r"minibatch.workers=.*whole number of at least 1"):
        Minibatch(bad, 32)
    with pytest.raises(RecipeError, match=r"minibatch.per_worker=.*whole number of at least 1"):
        Minibatch(8, bad)


def test_a_minibatch_larger_than_the_data_says_so():
    Minibatch(31, 32).check_fits(1000)
    with pytest.raises(RecipeError, match=r"32 x minibatch.per_worker=32 = 1024 images: must not exceed the 1000"):
        Minibatch(32, 32).check_fits(1000)


@given(st.integers(1, 50), st.integers(50, 500), st.integers(1, 6))
def test_carrying_sees_every_image_of_every_epoch_once(kn, images, epochs):
    plan = StepPlan(Minibatch(1, kn), images, epochs)
    seen = [divmod(position, plan.phases[0].epoch_images) for position in range(plan.total_steps * kn)]
    whole = [(e, p) for e in range(epochs) for p in range(images)]
    assert seen[: len(whole)] == whole
    assert len(seen) - len(whole) < kn
    assert sum(plan.ends_epoch(s) for s in range(plan.total_steps)) == plan.epochs_done(plan.total_steps) >= epochs


def test_dropping_leaves_out_the_last_partial_minibatch():
    plan = StepPlan(Minibatch(3, 10), 100, 2, "drop")
    assert plan.phases[0].steps_per_epoch == 3
    assert plan.total_steps == 6
    assert plan.phases[0].epoch_images == 90


def test_steps_of_the_paper():
    plan = StepPlan(Minibatch(256, 32), 1_281_167, 90)
    assert plan.total_steps == math.ceil(90 * 1_281_167 / 8192) == 14076
    assert float(plan.steps(5)) == pytest.approx(781.96, abs=0.01)


def test_a_fraction_of_an_epoch_is_exact():
    assert StepPlan(Minibatch(8, 32), 60_000, 0.1).total_steps == 24  # 23.4375, not spoilt by binary fractions
