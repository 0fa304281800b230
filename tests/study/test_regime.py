"""Regime adaptation in a study: the reference minibatch's steps in place of its epochs, one schedule of the step."""

import math
from types import SimpleNamespace

import pytest
from support.cases import IMAGES, case_of

from batchscale.build.planning import momentum_of, plan_of, schedule_of
from batchscale.errors import RecipeError, UsageError
from batchscale.study.evidence.elbow import Elbow
from batchscale.study.minibatch_error import words
from batchscale.study.minibatch_error.answer import answer_of
from batchscale.study.rules import Rule, parse_rules
from batchscale.study.runner.cell import Outcome
from batchscale.study.studies import cells_of
from batchscale.study.warmup.question import parse_kinds

SCHEDULES = {
    "cosine": ("learning_rate.decay={kind: cosine, end: 5}", "learning_rate.warmup={kind: gradual, epochs: 1}"),
    "step": ("learning_rate.decay={kind: step, epochs: [2, 3.5], factor: 0.5}",),
    "momentum": ("optimizer.momentum_changes=[{epoch: 1.5, momentum: 0.5}]", "data.partial=drop"),
}


def cells(rules, overrides=(), **fields):
    overrides = ("epochs=6", *overrides)
    case = case_of("minibatch-error", overrides=overrides, minibatches="16,32,96,1024", rules=rules, seeds=1, **fields)
    return case, {(cell.labels["rule"], cell.labels["minibatch"]): cell for cell in cells_of("minibatch-error", case)}


@pytest.mark.parametrize("overrides", SCHEDULES.values(), ids=SCHEDULES)
def test_every_minibatch_has_the_references_steps_and_its_schedule_of_the_step(overrides):
    _, runs = cells("none+regime,none+gradual+regime", overrides, warmup_epochs=0.5)
    for rule in ("none+regime", "none+gradual+regime"):
        reference = runs[rule, 32].recipe
        plan = plan_of(reference, IMAGES)
        lrs = [schedule_of(reference, plan)(step) for step in range(plan.total_steps)]
        for minibatch in (16, 96, 1024):
            recipe = runs[rule, minibatch].recipe
            other = plan_of(recipe, IMAGES)
            assert other.total_steps == plan.total_steps
            assert other.images(other.total_steps) == plan.total_steps * minibatch
            schedule = schedule_of(recipe, other)
            assert [schedule(step) for step in range(other.total_steps)] == pytest.approx(lrs, rel=1e-6, abs=1e-9)
            if "momentum_changes" in overrides[0]:
                momenta = momentum_of(reference, plan), momentum_of(recipe, other)
                changes = [[m(step) for step in range(plan.total_steps)] for m in momenta]
                assert changes[0] == changes[1]
                assert set(changes[0]) == {0.9, 0.5}


def test_the_lr_is_still_the_rules_and_the_reference_shares_its_run():
    _, runs = cells("sqrt,sqrt+regime")
    assert runs["sqrt", 32].key == runs["sqrt+regime", 32].key
    assert runs["sqrt", 1024].key != runs["sqrt+regime", 1024].key
    assert runs["sqrt+regime", 1024].target_lr == pytest.approx(runs["sqrt", 32].target_lr * math.sqrt(32))
    assert runs["sqrt+regime", 1024].recipe.epochs == 32 * runs["sqrt", 32].recipe.epochs
    evaluations = [runs["sqrt+regime", kn].recipe.execution.evaluation_epochs for kn in (16, 32, 96, 1024)]
    assert evaluations == [1, 1, 3, 32]


def test_words_of_rules():
    assert parse_rules("sqrt+regime, linear+gradual+regime") == (
        Rule("sqrt", "none", True), Rule("linear", "gradual", True),
    )  # fmt: skip
    assert [rule.name for rule in parse_rules("sqrt,sqrt+regime,half_life_sqrt+gradual+regime")] == [
        "sqrt", "sqrt+regime", "half_life_sqrt+gradual+regime",
    ]  # fmt: skip
    for text in ("regime", "sqrt+regime+gradual", "sqrt+regime+regime", "sqrt+", "sqrt+gradual+constant"):
        with pytest.raises(UsageError, match="is no rule"):
            parse_rules(text)
    for text in ("regime", "gradual+regime", "slow"):
        with pytest.raises(UsageError, match="--kinds"):
            parse_kinds(text)


def test_a_rule_that_cannot_hold_at_a_minibatch_is_refused_before_any_run():
    adam = ("optimizer={name: adamw}",)
    case = case_of("minibatch-error", overrides=adam, minibatches="32,320", rules="adam_sde", seeds=1)
    with pytest.raises(RecipeError, match=r"at kn = 320: kappa = 10 makes beta1 .* works is 288, minibatch.workers=9"):
        cells_of("minibatch-error", case)
    with pytest.raises(RecipeError, match=r"scaling=half_life with optimizer.name=sgd"):
        cells_of("minibatch-error", case_of("minibatch-error", minibatches="32,64", rules="half_life", seeds=1))


def elbow(minibatch, at_least=False):
    return Elbow(minibatch, at_least, None, None, {}, 1)


@pytest.mark.parametrize(
    ("shorter", "longer", "sentence"),
    [
        (
            elbow(64),
            elbow(256),
            "reaches kn = 256, and not 64: up to there updates were too few; beyond it the minibatch",
        ),
        (elbow(64), elbow(256, True), "reaches kn = 256, and not 64: up to there updates were too few."),
        (elbow(64), elbow(64), "no further than kn = 64: beyond it the minibatch is too large, whatever the number"),
        (elbow(256, True), elbow(256, True), ""),
        (elbow(None), elbow(256), ""),
    ],
)
def test_the_answer_tells_too_few_updates_from_too_large_a_minibatch(shorter, longer, sentence):
    elbows = SimpleNamespace(elbows={"sqrt": shorter, "sqrt+regime": longer, "linear": shorter})
    text = "".join(words._updates(SimpleNamespace(elbows=elbows)))
    assert sentence in text
    assert bool(text) == bool(sentence)


def test_the_question_says_which_rules_have_the_steps():
    case, runs = cells("sqrt,sqrt+regime")
    outcomes = [Outcome(cell, None, "missing") for cell in runs.values()]
    text = words.asked(case, outcomes)
    assert "6 epochs at every minibatch (by sqrt+regime the steps of kn = 32 in their place), one seed each" in text
    assert answer_of(case, outcomes).reference.minibatch == 32
