"""Growth that is decided during the run, as a recipe states it: its defaults, and the checkpoints that stay."""

import pytest
from support.runs import RECIPE

from batchscale.build.growing import KeptSteps, decisions_of, with_decisions
from batchscale.build.planning import plan_of
from batchscale.errors import RecipeError
from batchscale.minibatch import Minibatch, StepPlan
from batchscale.recipe import recipe_from
from batchscale.update.growing import Decision, GrowingPlan

IMAGES = 128


def growing(*overrides):
    growth = "minibatch={workers: 2, per_worker: 2, growth: {kind: noise_scale, largest: 16, measure_steps: 1}}"
    recipe = recipe_from(RECIPE, [growth, "epochs=4", "learning_rate.decay={kind: none}", *overrides])
    return recipe, plan_of(recipe, IMAGES)


def test_a_decision_is_taken_every_epoch_where_nothing_else_is_said():
    _, plan = growing()
    assert isinstance(plan, GrowingPlan)
    assert (plan.rule.every_examples, plan.decision_step) == (IMAGES, 32)
    _, often = growing("minibatch.growth.every_examples=40")
    assert (often.rule.every_examples, often.decision_step) == (40, 10)


def test_the_largest_may_be_all_of_the_data_and_no_more():
    growing("minibatch.growth.largest=128")
    with pytest.raises(RecipeError, match="largest=129: must not exceed the 128 training images"):
        growing("minibatch.growth.largest=129")


def test_between_two_decisions_lies_a_measured_step_of_every_minibatch_that_may_grow():
    """At 16, the largest, nothing is decided; at 8 every fifth step is one of 40 examples."""
    growing("minibatch.growth.measure_steps=5", "minibatch.growth.every_examples=40")
    with pytest.raises(RecipeError, match=r"holds fewer than 5 steps of 8 images, .* give at least 40,"):
        growing("minibatch.growth.measure_steps=5", "minibatch.growth.every_examples=39")


def test_a_branchs_plan_may_have_nothing_left_to_decide():
    recipe, plan = growing()
    late = "minibatch.growth.every_examples=500"
    with pytest.raises(RecipeError, match="the first decision, 500 images into the run, takes effect after step 133"):
        growing(late)
    earlier = (Decision(125, 4, False),)
    assert not with_decisions(recipe_from(recipe.model_dump(mode="json")), plan.as_stated, earlier).may_decide


def test_kept_steps_are_those_named_and_the_first_at_or_after_an_epoch():
    plan = StepPlan(Minibatch(2, 5), 25, 4)
    kept = KeptSteps(plan, [7], [0, 1, 2, 2.1])
    assert [step for step in range(-1, 12) if step in kept] == [3, 5, 6, 7]
    assert "7" not in kept


def test_decisions_of_a_checkpoint_without_any_are_none():
    one = Decision(10, 4, True, 18, 4, {"noise_scale": 9.0})
    assert decisions_of({}) == decisions_of({"growth": {}}) == ()
    assert decisions_of({"growth": {"decisions": [one.as_json()]}}) == (one,)
