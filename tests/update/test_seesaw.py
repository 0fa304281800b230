"""Seesaw: the minibatch doubles at each halving of the decay; the lr is the schedule times the minibatch's root."""

import math

import pytest
from support.runs import RECIPE

from batchscale.build.derive import as_text, derived_numbers
from batchscale.build.trunk import Trunk, run_plan, run_schedule
from batchscale.errors import RecipeError
from batchscale.recipe import recipe_from

IMAGES = 64_000  # kn = 32: 2,000 steps an epoch
GIVEN = (
    "epochs=10", "learning_rate.reference=0.1", "learning_rate.scaling=sqrt", "minibatch.growth={kind: seesaw}",
    "learning_rate.warmup={kind: none}",
)  # fmt: skip


def planned(*overrides, trunk=None):
    recipe = recipe_from(RECIPE, [*GIVEN, *overrides])
    plan = run_plan(recipe, IMAGES, trunk)
    return recipe, plan, run_schedule(recipe, plan, trunk)


def cosine(progress):
    return 0.5 * (1 + math.cos(math.pi * progress))


@pytest.mark.parametrize(
    ("decay", "share"),
    [
        ("{kind: cosine}", lambda epoch, end: cosine(epoch / end)),
        ("{kind: polynomial, power: 2}", lambda epoch, end: (1 - epoch / end) ** 2),
        ("{kind: cosine, final: 0.3}", lambda epoch, end: 0.3 + 0.7 * cosine(epoch / end)),
        ("{kind: cosine, end: 14}", lambda epoch, end: cosine(epoch / 14)),
        ("{kind: step, epochs: [4, 8], factor: 0.5}", lambda epoch, end: 0.5 ** ((epoch >= 4) + (epoch >= 8))),
        ("{kind: step, epochs: [4, 8], factor: 0.1}", lambda epoch, end: 0.1 ** ((epoch >= 4) + (epoch >= 8))),
    ],
)
def test_every_step_has_as_many_doublings_as_the_decay_has_halved_the_lr_and_their_root_in_it(decay, share):
    _, plan, schedule = planned(f"learning_rate.decay={decay}")
    assert plan.growth
    largest = plan.phases[-1].minibatch.images
    last = float(plan.epoch_at(plan.total_steps))  # the decay ends with the last step, which passes epoch 10 a little
    for step in range(0, plan.total_steps, 7):
        epoch, kn = float(plan.epoch_at(step)), plan.minibatch_at(step).images
        if kn < largest:
            assert kn == 32 * 2 ** math.floor(-math.log2(share(epoch, 10)) + 1e-4), (step, epoch)
        assert schedule(step) == pytest.approx(0.1 * share(epoch, last) * math.sqrt(kn / 32), rel=1e-9)


def test_at_a_doubling_the_lr_falls_to_a_root_of_half_of_what_it_was_at_the_doubling_before():
    _, plan, schedule = planned("learning_rate.decay={kind: step, epochs: [2, 4, 6, 8], factor: 0.5}")
    lrs = [schedule(phase.first_step) for phase in plan.phases]
    assert [phase.minibatch.images for phase in plan.phases] == [32, 64, 128, 256, 512]
    assert lrs == pytest.approx([0.1 * 0.5 ** (i / 2) for i in range(5)], rel=1e-12)
    assert plan.total_steps == 4000 + 2000 + 1000 + 500 + 250  # of 20,000


def test_it_ends_at_a_tenth_of_the_data_and_where_halvings_follow_each_other_within_a_step():
    _, plan, _ = planned("learning_rate.decay={kind: cosine}")
    sizes = [phase.minibatch.images for phase in plan.phases]
    assert sizes == [32 * 2**i for i in range(len(sizes))]
    assert sizes[-1] <= 6_400
    for phase in plan.phases:
        assert len(plan.steps_of(phase)) >= 1
    recipe = recipe_from(RECIPE, [*GIVEN, "learning_rate.decay={kind: cosine}"])
    few = run_plan(recipe, 320, None)
    assert [phase.minibatch.images for phase in few.phases] == [32]  # 64 is above a tenth of 320


def test_the_decay_begins_with_the_warmups_end_in_epochs_or_steps():
    for warmup in ("{kind: gradual, epochs: 2}", "{kind: gradual, steps: 4000}"):
        _, plan, _ = planned("learning_rate.decay={kind: cosine}", f"learning_rate.warmup={warmup}")
        assert float(plan.phases[1].first_epoch) == pytest.approx(6, abs=1e-3)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["learning_rate.scaling=linear"],
            r"seesaw with learning_rate.scaling=linear: .* use learning_rate.scaling=sqrt",
        ),
        (
            ["learning_rate.decay={kind: none}"],
            r"seesaw with learning_rate.decay.kind=none: .* such as learning_rate.dec",
        ),
    ],
)
def test_what_seesaw_cannot_be_is_one_clear_line(overrides, message):
    with pytest.raises(RecipeError, match=message) as error:
        planned(*overrides)
    assert "\n" not in str(error.value)


def test_a_longer_branch_keeps_its_trunks_halvings():
    trunk, plan, schedule = planned("learning_rate.decay={kind: cosine}")
    first = plan.phases[1].first_step
    _, longer, goes_on = planned("epochs=12", trunk=Trunk("trunk", first - 5, "", trunk))
    phases = {phase.first_step: phase.minibatch.images for phase in plan.phases}
    assert phases.items() <= {phase.first_step: phase.minibatch.images for phase in longer.phases}.items()
    assert [goes_on(step) for step in (first - 1, first, first + 100)] == [
        schedule(step) for step in (first - 1, first, first + 100)
    ]


def test_the_derived_numbers_say_when_it_grows():
    recipe, _, _ = planned("learning_rate.decay={kind: cosine}")
    text = " ".join(as_text(derived_numbers(recipe, IMAGES, 1)).split())
    assert "growth x 2 at each halving of the decay while kn <= N / 10 = 6400; lr x sqrt(kn / first kn) = " in text
