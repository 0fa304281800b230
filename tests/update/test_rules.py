"""Scaling rules: what each keeps at any minibatch, alike at a start, a growth and a branch; what is refused."""

import itertools
import math

import pytest
import torch
from support.runs import RECIPE
from torch import nn

from batchscale.build.constants import jump_warning, run_constants
from batchscale.build.derive import as_text, derived_numbers
from batchscale.build.trunk import Trunk, run_plan, run_schedule
from batchscale.errors import RecipeError
from batchscale.recipe import identity, recipe_from
from batchscale.update.adamw import AdamW
from batchscale.update.rules import RULES

IMAGES = 4_096
ADAM = "optimizer={name: adamw, beta1: 0.95, beta2: 0.99, epsilon: 1.0e-6, weight_decay: 0.1, scale_decay: true}"
STATED = {"beta1": 0.95, "beta2": 0.99, "epsilon": 1e-6}
RATIOS = (0.25, 0.5, 1, 2, 3, 4)
AVERAGED = 0.99


def ruled(rule, *overrides, workers=4, adam=ADAM):
    """n = 8 and kappa = 1 at four workers; a constant lr."""
    adam = adam.replace("scale_decay: true", "scale_decay: false") if rule == "adascale" else adam
    return recipe_from(
        RECIPE,
        [
            adam, f"learning_rate.scaling={rule}", f"minibatch.workers={workers}", f"model.ema_decay={AVERAGED}",
            "learning_rate.warmup={kind: none}", "learning_rate.decay={kind: none}", *overrides,
        ],
    )  # fmt: skip


def planned(recipe, trunk=None):
    plan = run_plan(recipe, IMAGES, trunk)
    return plan, run_schedule(recipe, plan, trunk), run_constants(recipe, plan, trunk)


def at(rule, kappa):
    """(lr, optimizer's constants, power of the average's decay, weight decay) of a minibatch."""
    _, schedule, constants = planned(ruled(rule, "minibatch.per_worker=4", workers=int(8 * kappa)))
    values = {name: constants.constant(name, 0) for name in STATED}
    return schedule(0), values, constants.averaged_steps(0), 0.1 * constants.decay_factor(0)


every = pytest.mark.parametrize("rule", sorted(RULES))


@every
def test_at_the_reference_every_constant_is_as_stated(rule):
    assert at(rule, 1) == (0.05, STATED, 1.0, 0.1)


@pytest.mark.parametrize(
    ("rule", "lr"), [("half_life", lambda kappa: 0.05), ("half_life_sqrt", lambda k: 0.05 * k**0.5)]
)
@pytest.mark.parametrize("kappa", RATIOS)
def test_half_life_keeps_the_half_life_of_the_square_in_examples(rule, lr, kappa):
    rate, values, _, _ = at(rule, kappa)
    examples = math.log(0.5) / math.log(values["beta2"]) * 32 * kappa
    assert examples == pytest.approx(math.log(0.5) / math.log(0.99) * 32, rel=1e-12)
    assert (values["beta1"], values["epsilon"]) == (0.95, 1e-6)
    assert rate == pytest.approx(lr(kappa), rel=1e-12)


@pytest.mark.parametrize("kappa", RATIOS)
def test_adam_sde_keeps_the_constants_of_the_sde(kappa):
    """Malladi et al. 2022, definition 4.4: lr^2 is a step's time; noise over a step's gradient falls as 1 / sqrt kn."""
    rate, values, _, _ = at("adam_sde", kappa)
    assert rate / math.sqrt(32 * kappa) == pytest.approx(0.05 / math.sqrt(32), rel=1e-12)  # lr sigma / sqrt kn
    for name in ("beta1", "beta2"):
        assert (1 - values[name]) / rate**2 == pytest.approx((1 - STATED[name]) / 0.05**2, rel=1e-12)
    assert values["epsilon"] * math.sqrt(32 * kappa) == pytest.approx(1e-6 * math.sqrt(32), rel=1e-12)


@pytest.mark.parametrize(("rule", "alike"), [("adam_sde", True), ("linear", False), ("none", False)])
def test_adams_own_walk_under_noise_is_as_wide_after_the_same_examples_only_by_the_sdes_rule(rule, alike):
    """20,000 coordinates under gradients that are noise alone, of variance 1 / kappa."""
    spreads = []
    for kappa in (1, 4):
        rate, values, _, _ = at(rule, kappa)
        weight = nn.Parameter(torch.zeros(20_000, dtype=torch.float64))
        optimizer = AdamW([([weight], 0.0)], **values)
        generator = torch.Generator().manual_seed(kappa)
        for _ in range(600 // kappa):
            weight.grad = torch.randn(20_000, generator=generator, dtype=torch.float64) / kappa**0.5
            optimizer.step(lr=rate)
        spreads.append(float(weight.detach().var()))
    assert (spreads[1] / spreads[0] == pytest.approx(1, rel=0.1)) == alike


@every
@pytest.mark.parametrize("kappa", RATIOS)
def test_averages_keep_their_decay_an_example(rule, kappa):
    power = at(rule, kappa)[2]
    per_example = (AVERAGED**power) ** (1 / (32 * kappa if rule != "none" else 32))
    assert per_example == pytest.approx(AVERAGED ** (1 / 32), rel=1e-12)


@pytest.mark.parametrize("rule", sorted({*RULES} - {"adascale"}))
@pytest.mark.parametrize("kappa", RATIOS)
def test_scaled_decay_takes_the_same_share_of_the_weights_an_epoch(rule, kappa):
    rate, _, _, decay = at(rule, kappa)
    steps = IMAGES / (32 * kappa)
    assert steps * rate * decay == pytest.approx(IMAGES / 32 * 0.05 * 0.1, rel=1e-12)


@every
def test_a_rule_acts_the_same_at_a_start_a_growth_and_a_branch(rule):
    """At kn = 96: begun so, grown to so, or branched to so, in one branch or in a chain of two."""
    start = ruled(rule, workers=12)
    grown = ruled(rule, "minibatch.growth={kind: phases, phases: [{epoch: 0.5, workers: 8}, {epoch: 1, workers: 12}]}")
    trunk = Trunk("trunk", 64, "", ruled(rule))
    middle = Trunk("middle", 96, "", ruled(rule, workers=8), trunk)
    seen = []
    for recipe, point in ((start, None), (grown, None), (start, trunk), (start, middle)):
        plan, schedule, constants = planned(recipe, point)
        step = plan.total_steps - 1
        assert plan.minibatch_at(step).images == 96
        seen.append(
            [schedule(step), *(constants.constant(name, step) for name in STATED), constants.averaged_steps(step),
             constants.decay_factor(step)]
        )  # fmt: skip
    for values in seen[1:]:
        assert values == pytest.approx(seen[0], rel=1e-12)
    plan, _, constants = planned(grown)
    kappas = [float(constants.kappa(phase.first_step)) for phase in plan.phases]
    powers = [constants.averaged_steps(phase.first_step) for phase in plan.phases]
    assert kappas == [1, 2, 3]
    assert powers == ([1, 1, 1] if rule == "none" else kappas)


def test_a_branchs_own_rule_acts_on_its_factor_alone():
    trunk = Trunk("trunk", 64, "", ruled("half_life", workers=8))
    _, _, constants = planned(ruled("adam_sde", workers=16), trunk)
    assert constants.constant("beta2", 64) == pytest.approx(1 - 2 * (1 - 0.99**2), rel=1e-12)
    assert constants.constant("beta1", 64) == pytest.approx(1 - 2 * 0.05, rel=1e-12)
    _, _, constants = planned(ruled("none", workers=16), trunk)
    assert constants.constant("beta2", 64) == pytest.approx(0.99**2, rel=1e-12)
    assert (constants.averaged_steps(63), constants.averaged_steps(64)) == (2.0, 2.0)


def test_where_growth_leaves_the_lr_the_constants_follow_all_the_same():
    growth = "minibatch.growth={kind: phases, phases: [{epoch: 1, workers: 16}], learning_rate: stays}"
    plan, schedule, constants = planned(ruled("adam_sde", growth))
    last = plan.total_steps - 1
    assert schedule(last) == schedule(0)
    assert constants.constant("beta1", last) == pytest.approx(0.8, rel=1e-12)
    assert constants.decay_factor(last) == pytest.approx(4.0, rel=1e-12)  # a quarter of the steps, the lr as it was


def test_a_rule_that_leaves_nothing_of_a_beta_is_refused_with_the_largest_that_works():
    nine = "optimizer={name: adamw, beta1: 0.9}"  # in floats 1 - 10 (1 - 0.9) is above 0
    for workers in (40, 44):
        with pytest.raises(RecipeError) as error:
            planned(ruled("adam_sde", workers=workers, adam=nine))
        line = str(error.value)
        assert line.startswith(
            f"learning_rate.scaling=adam_sde at kn = {8 * workers}: kappa = {workers / 4:g} makes beta1 "
        )
        assert "kappa must stay below 10; the largest minibatch that works is 312, minibatch.workers=39" in line
        assert "\n" not in line
    planned(ruled("adam_sde", workers=39, adam=nine))
    growth = "minibatch.growth={kind: phases, phases: [{epoch: 1, workers: 64}]}"
    with pytest.raises(RecipeError, match=r"at kn = 512: .* largest minibatch that works is 312"):
        planned(ruled("adam_sde", growth, adam=nine))
    trunk = Trunk("trunk", 64, "", ruled("adam_sde", workers=8, adam=nine))
    with pytest.raises(RecipeError, match=r"at kn = 320: kappa = 5 makes beta1 .* below 5; the largest .* is 312"):
        planned(ruled("adam_sde", workers=40, adam=nine), trunk)


def test_adascale_takes_the_decay_of_the_steps_that_a_step_is_worth_and_no_scaled_one():
    scaled = ruled("adascale").model_copy(update={"optimizer": ruled("linear").optimizer})
    with pytest.raises(RecipeError, match=r"^optimizer.scale_decay=true with .*adascale: .*use .*scale_decay=false$"):
        planned(scaled)


@pytest.mark.parametrize("rule", ["adam_sde", "half_life"])
def test_without_an_average_there_is_none_to_scale(rule):
    """Beta1 = 0 is RMSprop, whose rule has no beta1; a beta2 of which a power leaves nothing is no fault."""
    none = "optimizer={name: adamw, beta1: 0.0, beta2: 0.99}"
    for workers in (2, 4, 16):
        _, _, constants = planned(ruled(rule, workers=workers, adam=none))
        assert constants.constant("beta1", 0) == 0.0
        assert constants.constant("beta2", 0) < 0.999
    nothing = "optimizer={name: adamw, beta1: 0.0, beta2: 0.0}"
    assert planned(ruled(rule, workers=16, adam=nothing))[2].constant("beta2", 0) == 0.0
    short = ruled("half_life", "learning_rate.reference_minibatch=1", workers=256, adam=none.replace("0.99", "0.5"))
    assert planned(short)[2].constant("beta2", 0) == 0.0


def test_from_a_share_of_two_fifths_on_a_warning_names_it():
    nine = "optimizer={name: adamw, beta1: 0.9}"
    for workers, share in ((12, None), (16, "0.4"), (32, "0.8")):
        recipe = ruled("adam_sde", workers=workers, adam=nine)
        warning = jump_warning(recipe, run_plan(recipe, IMAGES))
        assert (warning is None) == (share is None)
        assert warning is None or f"at kn = {8 * workers}: kappa (1 - beta1) = {share}, so beta1 is" in warning
    stated = ruled("adam_sde", adam="optimizer={name: adamw, beta1: 0.5}")  # short as stated, and no rule's doing
    assert jump_warning(stated, run_plan(stated, IMAGES)) is None
    assert jump_warning(ruled("linear"), run_plan(ruled("linear"), IMAGES)) is None


@pytest.mark.parametrize(("rule", "names"), [("adam_sde", "beta1 and beta2 and epsilon"), ("half_life", "beta2")])
def test_a_rule_of_betas_is_refused_for_an_optimizer_without_them(rule, names):
    with pytest.raises(
        RecipeError, match=f"scaling={rule} with optimizer.name=sgd: the rule scales {names}, which this"
    ):
        planned(ruled(rule, adam="optimizer={name: sgd}"))


def test_the_derived_numbers_print_every_constant_that_a_rule_changed_with_its_formula():
    growth = "minibatch.growth={kind: phases, phases: [{epoch: 1, workers: 16}]}"
    text = as_text(derived_numbers(ruled("adam_sde", growth, workers=8), IMAGES, 1))
    rows = {line.split("  ")[0]: " ".join(line.split()) for line in text.splitlines()}
    assert rows["target lr"].endswith("reference x sqrt(kn / reference_minibatch) = 0.05 x 1.41421 = 0.0707107")
    assert rows["beta1"] == (
        "beta1 1 - kappa (1 - beta1), 0.95 at kappa = 1 = 0.9 at kappa = 2 from step 0; 0.8 at kappa = 4 from step 64"
    )
    assert "beta2 1 - kappa (1 - beta2), 0.99 at kappa = 1 = 0.98 at kappa = 2" in rows["beta2"]
    assert "epsilon epsilon / sqrt kappa, 1e-06 at kappa = 1 = 7.07107e-07 at kappa = 2" in rows["epsilon"]
    assert "ema_decay ema_decay^kappa, 0.99 at kappa = 1 = 0.9801 at kappa = 2" in rows["ema_decay"]
    assert "weight_decay weight_decay kappa / the lr's factor, 0.1 at kappa = 1 = 0.141421 at" in rows["weight_decay"]
    same = as_text(derived_numbers(ruled("adam_sde"), IMAGES, 1))
    assert not {"beta1", "beta2", "epsilon", "ema_decay", "weight_decay"} & {
        line.split()[0] for line in same.splitlines()
    }


def test_identities_of_recipes_without_scaled_decay_stay():
    assert "optimizer.scale_decay" not in identity(recipe_from(RECIPE, ["optimizer={name: adamw}"]))
    assert identity(ruled("linear"))["optimizer.scale_decay"]


def test_every_rule_says_what_it_makes_of_the_lr():
    written = [rule for rule in RULES.values() if "measured" not in rule.lr_formula]
    assert len(written) == len(RULES) - 1  # adascale's gain
    for rule, kappa in itertools.product(written, RATIOS):
        value = eval(rule.lr_formula.format(r=kappa), {"sqrt": math.sqrt})
        assert rule.lr(kappa) == pytest.approx(value, rel=1e-15)
