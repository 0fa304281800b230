"""Momentum that changes at given epochs: a function of the step, the same formula before and after, said beforehand."""

import pytest
import torch
from support.runs import RECIPE
from torch import nn

from batchscale.build.derive import as_text, derived_numbers
from batchscale.build.planning import momentum_of, plan_of
from batchscale.errors import RecipeError
from batchscale.recipe import identity, load_recipe, recipe_from
from batchscale.study.rules import Rule, recipe_at
from batchscale.update.sgd import SGD, SGDLrInBuffer

CHANGES = "optimizer.momentum_changes=[{epoch: 1, momentum: 0.5}, {epoch: 2.5, momentum: 0.97}]"
LRS = [0.1, 0.2, 0.4, 0.0, 0.04, 0.3]
MOMENTA = [0.9, 0.9, 0.5, 0.5, 0.97, 0.97]


def trained(optimizer, weight, apply):
    generator = torch.Generator().manual_seed(0)
    for lr, momentum in zip(LRS, MOMENTA, strict=True):
        weight.grad = torch.randn(weight.shape, generator=generator, dtype=torch.float64) + weight.detach()
        apply(optimizer, lr, momentum)
    return weight.detach()


def ours(optimizer, lr, momentum):
    optimizer.momentum = momentum
    optimizer.step(lr=lr)


def torchs(optimizer, lr, momentum):
    optimizer.param_groups[0] |= {"lr": lr, "momentum": momentum}
    optimizer.step()


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("form", [SGD, SGDLrInBuffer])
def test_both_forms_equal_torch_sgd_whose_momentum_changes(form, nesterov):
    weights = [nn.Parameter(torch.linspace(-1, 2, 12, dtype=torch.float64)) for _ in range(2)]
    reference = torch.optim.SGD([weights[1]], lr=0.1, momentum=0.9, nesterov=nesterov, weight_decay=0.01, foreach=False)
    weight = trained(form([([weights[0]], 0.01)], 0.9, nesterov), weights[0], ours)
    torch.testing.assert_close(weight, trained(reference, weights[1], torchs), rtol=1e-12, atol=1e-12)


def test_the_change_comes_with_the_first_step_that_begins_at_its_epoch_also_while_the_minibatch_grows():
    grown = "minibatch.growth={kind: phases, phases: [{epoch: 2, workers: 8}]}"
    for overrides in ((), (grown,)):
        recipe = recipe_from(RECIPE, ["epochs=4", CHANGES, *overrides])
        plan = plan_of(recipe, 110)
        momentum = momentum_of(recipe, plan)
        for step in range(plan.total_steps):
            epoch = plan.epoch_at(step)
            assert momentum(step) == (0.97 if epoch >= 2.5 else 0.5 if epoch >= 1 else recipe.optimizer.momentum)
    assert momentum_of(recipe_from(RECIPE), plan) is None  # it stays as it is


def test_the_derived_numbers_say_where_it_changes_and_what_the_run_does_not_reach():
    lines = as_text(derived_numbers(recipe_from(RECIPE, ["epochs=2", CHANGES]), 110, 1))
    assert "momentum" not in as_text(derived_numbers(recipe_from(RECIPE), 110, 1))
    row = next(line for line in lines.splitlines() if line.startswith("momentum"))
    assert "0.9, others at epochs [1.0, 2.5]" in row
    assert row.endswith("= 0.5 from step 4; never reached in a run of 2 epochs: epoch 2.5")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("[{epoch: 2, momentum: 0.5}, {epoch: 2, momentum: 0.6}]", r"changes: epoch 2 after 2: epochs must rise"),
        ("[{epoch: 2, momentum: 0}]", r"optimizer.momentum_changes\[0\].momentum=0: .*greater than 0"),
        ("[{epoch: 2, momentum: 1}]", r"optimizer.momentum_changes\[0\].momentum=1: .*less than 1"),
        ("[{epoch: 0, momentum: 0.5}]", r"optimizer.momentum_changes\[0\].epoch=0: .*greater than 0"),
    ],
)  # fmt: skip
def test_changes_out_of_order_or_range_are_one_clear_line(entry, message):
    with pytest.raises(RecipeError, match=message) as error:
        recipe_from(RECIPE, [f"optimizer.momentum_changes={entry}"])
    assert "\n" not in str(error.value)


def test_changes_have_no_place_beside_no_momentum_or_in_an_optimizer_without_one():
    with pytest.raises(
        RecipeError, match=r"momentum=0 with momentum_changes: the first momentum, too, must be above 0"
    ):
        recipe_from(RECIPE, [CHANGES, "optimizer.momentum=0", "optimizer.nesterov=false"])
    with pytest.raises(RecipeError, match=r"momentum_changes has no place in adamw"):
        recipe_from(RECIPE, ["optimizer={name: adamw, momentum_changes: [{epoch: 1, momentum: 0.5}]}"])


def test_entries_that_older_runs_lack_are_part_of_an_identity_only_where_they_are_given():
    later = {"learning_rate.warmup.start", "learning_rate.decay.end", "optimizer.momentum_changes"}
    plain = recipe_from(RECIPE)
    recipe = recipe_from(
        RECIPE, [CHANGES, "learning_rate.warmup.start=0", "learning_rate.decay={kind: cosine, end: 2}"]
    )
    assert not later & identity(plain).keys()
    assert later <= identity(recipe).keys()
    assert identity(load_recipe("imagenet-resnet50-4min"))["learning_rate.decay.end"] == 89


def test_a_study_keeps_the_warmups_start():
    recipe = load_recipe("digits-cnn", ["learning_rate.warmup.start=0.0"])
    for epochs in (None, 2.0):
        scaled = recipe_at(recipe, 32, 32, Rule("linear", "gradual"), epochs, 1437)
        assert scaled.learning_rate.warmup.start == 0.0
