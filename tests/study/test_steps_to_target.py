"""Steps to target: exact on problems with a known answer, honest where there is none, and once for real."""

import csv
import itertools
import json
import re
import sys
from dataclasses import replace

import numpy as np
import pytest
from support.cases import case_of
from support.plugins import tables_put_back, write_plugin

from batchscale.build.planning import plan_of, schedule_of
from batchscale.cli import main
from batchscale.errors import UsageError
from batchscale.hyperbola import Interval, fit
from batchscale.recipe import dump_recipe
from batchscale.report.draw.lines import draw
from batchscale.study.runner.cell import Outcome
from batchscale.study.steps_to_target.answer import answer_of_points, as_json
from batchscale.study.steps_to_target.figures import figures
from batchscale.study.steps_to_target.question import parse_range
from batchscale.study.steps_to_target.regimes import DIMINISHING, MAXIMAL, PERFECT, local_slopes, regimes, slope_ranges
from batchscale.study.steps_to_target.search import check_begun, search_of
from batchscale.study.steps_to_target.space import Dimension, Space
from batchscale.study.steps_to_target.trials import Goal, Reached, Trial, expected_least, parse_goal, summarize
from batchscale.study.steps_to_target.words import asked as words_asked
from batchscale.study.steps_to_target.words import sentence, warnings

DOUBLINGS = [2**i for i in range(3, 13)]
GOAL = Goal("error", 5.0)
IOU = Goal("iou", 80.0, "higher")


def hyperbola(minibatches, steps_min=30.0, critical=200.0):
    return [steps_min * (1 + critical / b) for b in minibatches]


def test_the_fit_is_exact_on_an_exact_hyperbola():
    found = fit(DOUBLINGS, hyperbola(DOUBLINGS), hyperbola(DOUBLINGS))
    for interval, truth in (
        (found.steps_min, 30.0), (found.critical_minibatch, 200.0), (found.images_min, 6000.0),
    ):  # fmt: skip
        assert interval.value == pytest.approx(truth, rel=1e-6)
        assert (interval.low, interval.high) == pytest.approx((truth, truth), rel=1e-6)
    assert found.scatter_percent == pytest.approx(0, abs=1e-5)
    assert found.steps(200) == pytest.approx(60)
    assert found.beyond is None


def test_the_intervals_hold_the_truth_as_often_as_they_say():
    generator = np.random.default_rng(0)
    inside = np.zeros(3)
    for _ in range(300):
        steps = np.array(hyperbola(DOUBLINGS)) * np.exp(0.15 * generator.standard_normal(len(DOUBLINGS)))
        found = fit(DOUBLINGS, steps, steps)
        pairs = ((found.steps_min, 30), (found.critical_minibatch, 200), (found.images_min, 6000))
        inside += [i.low <= truth <= i.high for i, truth in pairs]
    assert np.all(np.abs(inside / 300 - 0.95) < 0.04), inside / 300


def test_a_curve_without_a_bend_bounds_the_critical_minibatch_on_one_side_only():
    noise = [1.05, 0.96, 1.02, 0.97, 1.03, 0.98, 1.01, 0.99, 1.04, 0.95]
    falling = [1e6 / b * f for b, f in zip(DOUBLINGS, noise, strict=True)]
    perfect = fit(DOUBLINGS, falling, falling)
    assert perfect.critical_minibatch.high is None
    assert perfect.steps_min.low is None
    assert perfect.beyond == "above"
    assert perfect.images_min.low < 1e6 < perfect.images_min.high
    flat = fit(DOUBLINGS, [100 * f for f in noise], [100 * f for f in noise])
    assert flat.critical_minibatch.low is None
    assert flat.images_min.low is None
    assert flat.beyond == "below"
    assert flat.steps_min.low < 100 < flat.steps_min.high
    assert fit(DOUBLINGS[:3], [9, 8, 7], [8, 7, 6]) is None


def test_what_evaluations_round_away_widens_the_intervals():
    """Rounded up to the interval, with no other noise: a curve through such points has no scatter to tell of it."""
    generator = np.random.default_rng(1)
    inside = np.zeros(3)
    for _ in range(200):
        true = np.array(hyperbola(DOUBLINGS)) * 2 ** generator.uniform(-1, 1)
        interval = np.round(0.3 * true * 2 ** generator.uniform(-0.5, 0.5, len(true)))
        steps = np.ceil(true / interval) * interval
        found = fit(DOUBLINGS, steps, steps - interval)
        scale = true[0] / hyperbola(DOUBLINGS)[0]
        pairs = ((found.steps_min, 30 * scale), (found.critical_minibatch, 200), (found.images_min, 6000 * scale))
        inside += [i.low <= truth <= i.high for i, truth in pairs]
    assert np.all(inside / 200 > 0.91), inside / 200
    halves = fit([8, 16, 32, 64], [80, 40, 20, 10], [40, 20, 10, 5])
    assert (halves.images_min.low < 330, halves.images_min.high > 630) == (True, True)
    assert fit([8, 16, 32, 64], [80, 40, 20, 10], [0, 0, 0, 0]) == halves  # half of S for 0


def test_a_minimum_at_the_end_of_the_search_is_not_seen():
    flat = fit([8, 16, 32, 64], [12] * 4, [12] * 4)
    assert (flat.critical_minibatch.value, flat.critical_minibatch.low, flat.critical_minibatch.high) == (None, None, 8)
    assert (flat.images_min.value, flat.images_min.low) == (None, None)
    assert flat.steps_min.value == pytest.approx(12, rel=1e-3)
    assert (flat.steps(8), flat.beyond) == (pytest.approx(12, rel=1e-3), "below")
    assert flat.critical_minibatch.text("B_crit", "images") == "B_crit not seen (below 8 images)"
    coarse = fit([8, 16, 32, 64], [12] * 4, [6] * 4)
    assert coarse.critical_minibatch.value is None
    assert coarse.critical_minibatch.high > 16
    falls = fit([8, 16, 32, 64], [80, 40, 20, 10], [80, 40, 20, 10])
    assert (falls.critical_minibatch.value, falls.critical_minibatch.low, falls.steps_min.value) == (None, 64, None)
    assert falls.steps_min.high < 0.1
    assert falls.images_min.value == pytest.approx(640, rel=1e-3)
    assert (falls.steps(64), falls.beyond) == (pytest.approx(10, rel=1e-3), "above")
    points = [point(b, 12, steps_before=12) for b in (32, 64, 128, 256)]
    (line,) = [line for line in doubts(points) if "B_crit" in line]
    assert line.startswith("B_crit not seen (below 32 images): below the smallest minibatch that reached the goal")


def test_regimes_of_a_hyperbola_lie_where_its_slopes_say():
    slopes = local_slopes(DOUBLINGS, hyperbola(DOUBLINGS))
    assert slopes[1:-1] == pytest.approx([-1 / (1 + b / 200) for b in DOUBLINGS[1:-1]], abs=0.02)
    found = regimes(DOUBLINGS, hyperbola(DOUBLINGS), hyperbola(DOUBLINGS))
    assert [regime.doubt for regime in found] == [None, None, None]
    assert [(r.name, r.minibatches) for r in found] == [
        (PERFECT, (8, 16, 32, 64)), (DIMINISHING, (128, 256, 512)), (MAXIMAL, (1024, 2048, 4096)),
    ]  # fmt: skip
    assert [(r.begins, r.ends) for r in found] == [
        (8, pytest.approx(64 * 2**0.5)), (pytest.approx(64 * 2**0.5), pytest.approx(512 * 2**0.5)),
        (pytest.approx(512 * 2**0.5), 4096),
    ]  # fmt: skip


def test_regimes_that_are_not_there_are_not_named():
    for steps, name in (
        ([1e6 / b for b in DOUBLINGS], PERFECT), ([70 + b / 1e3 for b in DOUBLINGS], MAXIMAL),
        ([1e3 * b**-0.5 for b in DOUBLINGS], DIMINISHING),
    ):  # fmt: skip
        assert [(r.name, r.doubt) for r in regimes(DOUBLINGS, steps, steps)] == [(name, None)]
    assert regimes([8, 16], [9, 8], [8, 7]) == []


def test_the_slope_ranges_are_those_of_all_steps_that_the_evaluations_allow():
    steps, before = [144, 72, 60, 36], [96, 48, 48, 0]
    corners = [local_slopes([8, 16, 32, 64], s) for s in itertools.product(*zip(steps, (96, 48, 48, 1), strict=True))]
    wanted = [(min(each), max(each)) for each in zip(*corners, strict=True)]
    assert np.allclose(slope_ranges([8, 16, 32, 64], steps, before), wanted)


def test_a_regime_is_not_sure_where_rounding_or_one_end_could_decide_it():
    kn, steps = [8, 16, 32, 64, 128, 256, 512, 1024], [144, 72, 60, 36, 12, 16, 16, 20]
    intervals = [48, 24, 12, 6, 3, 2, 2, 2]
    found = regimes(kn, steps, [s - i for s, i in zip(steps, intervals, strict=True)])
    assert [r.text for r in found] == [f"{PERFECT} (not sure)", f"{DIMINISHING} (not sure)", MAXIMAL]
    assert "one end of the curve alone" in found[0].doubt
    assert "lies outside its bounds whatever the evaluations round (-1.3" in found[1].doubt
    coarse = regimes([8, 16, 32, 64], [80, 40, 20, 10], [40, 20, 10, 5])
    assert (coarse[0].name, coarse[0].doubt.split(" within")[0]) == (PERFECT, "every slope in it crosses its bounds")
    assert regimes([8, 16, 32, 64], [80, 40, 20, 10], [79, 39, 19, 9])[0].doubt is None
    points = [point(b, s, steps_before=s // 2) for b, s in zip((32, 64, 128, 256), (80, 40, 20, 10), strict=True)]
    answer = answer_of_points(points)
    assert "perfect scaling from 32 to 256 (not sure) (diminishing returns" in sentence(case(), answer)
    assert any(line.startswith("perfect scaling from 32 to 256 is not sure: every slope") for line in doubts(points))
    (mark,) = drawn(points)[0].marks
    assert mark.label == "perfect scaling (not sure)"


def trial(number, values, status="done", border=(), minibatch=32):
    lines = [{"step": 5 * (i + 1), "error_percent": v, "loss": v} for i, v in enumerate(values)]
    settings = {"effective_lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4, "final_lr": 0.1}
    return Trial(minibatch, number, settings, border, status, lines, f"runs/{number}")


def test_steps_to_the_goal_are_the_first_evaluation_below_it_over_all_trials():
    trials = [
        trial(0, [90, 5.0, 4.9, 6]), trial(1, [80, 30, 20, 7]), trial(2, [70, 4, 3]), trial(3, [60, 4.5]),
        trial(4, [50, None], "diverged"),
    ]  # fmt: skip
    point = summarize(trials, GOAL, 100, 5)
    assert (point.steps, point.steps_before, point.best.number) == (10, 5, 2)  # equal to trial 3's, and before it
    assert (point.trials, point.reached, point.diverged, point.best_value) == (5, 3, 1, 3)
    steps = [15, 100, 10, 10, 100]
    assert point.steps_by_half == pytest.approx(np.mean([min(pair) for pair in itertools.combinations(steps, 2)]))
    first = summarize([trial(0, [1])], GOAL, 100, 5)
    assert (first.steps, first.steps_before) == (5, 0)


def test_a_goal_nobody_reaches_is_told_with_the_best():
    point = summarize([trial(0, [90, 8]), trial(1, [70, 9.5]), trial(2, [], "failed")], GOAL, 100, 5)
    assert (point.steps, point.steps_by_half, point.reached, point.failed) == (None, None, 0, 1)
    assert (point.best_value, point.best.number) == (8, 0)
    nothing = summarize([trial(0, [None], "diverged")], GOAL, 100, 5)
    assert (nothing.best, nothing.best_value) == (None, None)
    said = sentence(case(), answer_of_points([point, nothing]))
    assert said == "Not reached: no trial fell to error below 5 %; the best was 8.00 % at kn = 32."
    assert "no trial left an evaluation" in sentence(case(), answer_of_points([nothing]))
    assert "goal not reached by 3 trials of 100 steps (0 diverged): the best was 8.00 %" in doubts([point])[0]


def test_the_expected_least_of_a_draw_is_the_mean_over_all_draws():
    values = [7.0, 3.0, 9.0, 4.0, 4.0, 100.0, 12.0]
    for drawn in range(1, 8):
        every = [min(part) for part in itertools.combinations(values, drawn)]
        assert expected_least(values, drawn) == pytest.approx(np.mean(every))


@pytest.mark.parametrize("text", ["error<10", "error < 10%", " error<10.0 "])
def test_goals_are_read(text):
    assert parse_goal(text) == Goal("error", 10.0)
    assert parse_goal("loss<.5") == Goal("loss", 0.5)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "error",
        "error>10",
        "error<",
        "error<-1",
        "error<0",
        "error<101",
        "error<\u0663",
        "loss>1",
        "loss<-1",
        "iou",
        "iou=80",
        "iou>",
        ">80",
        "iou<1<2",
        "iou>x",
        "iou>1e999",
    ],
)
def test_other_goals_are_refused(text):
    with pytest.raises(UsageError, match=r"must be error<PERCENT .*write 'error<10'"):
        parse_goal(text)


@pytest.mark.parametrize("text", ["iou>80", "iou > 80 %", " iou>80.0%", "iou>8e1"])
def test_goals_by_any_score_are_read(text):
    assert parse_goal(text) == IOU
    assert parse_goal(IOU.words) == IOU
    assert parse_goal("median distance<-.5") == Goal("median distance", -0.5, "lower")


def test_goals_that_are_none_of_error_and_loss_are_told_the_rule_for_scores():
    with pytest.raises(UsageError, match="or NAME<VALUE or NAME>VALUE with another score of the task; write"):
        parse_goal("iou=80")
    with pytest.raises(UsageError) as error:
        parse_goal("error>5")
    assert str(error.value) == (
        "--goal='error>5': must be error<PERCENT with 0 < PERCENT <= 100, or loss<VALUE above 0; write 'error<10'"
    )


def scored(number, values):
    """A trial of evaluations with the score iou."""
    lines = [{"step": 5 * (i + 1), "loss": 1.0, "scores": {"iou": value}} for i, value in enumerate(values)]
    return replace(trial(number, []), evaluations=lines)


def test_a_goal_that_is_better_higher_is_reached_above_it_and_the_best_is_the_highest():
    trials = [scored(0, [10, 80.0, 80.5, 99]), scored(1, [20, 70, 60]), scored(2, [None, 81, 5])]
    summary = summarize(trials, IOU, 100, 5)
    assert (summary.steps, summary.steps_before, summary.best.number) == (10, 5, 2)
    assert (summary.reached, summary.best_value) == (2, 99)
    missed = summarize([trials[1], scored(3, [75, 3]), scored(4, [75, 4])], IOU, 100, 5)
    assert (missed.steps, missed.best_value, missed.best.number) == (None, 75, 3)  # of equal ones the first
    assert parse_goal("iou<80").meets(79)
    assert summarize(trials, parse_goal("iou<10"), 100, 5).best_value == 5


def test_a_goal_by_a_score_in_words_figures_and_numbers():
    asked = case(goal=IOU)
    far, near = (summarize([scored(0, [value])], IOU, 100, 5) for value in (50, 75.25))
    assert sentence(asked, answer_of_points([far, near])) == (
        "Not reached: no trial rose to iou above 80; the best was 75.25 at kn = 32."
    )
    assert "(0 diverged): the best was 50;" in doubts([far], asked)[0]
    points = [replace(point(b, 100), best_value=90.0) for b in (8, 16)]
    answer = answer_of_points(points)
    assert sentence(asked, answer).startswith("Steps to iou above 80: 100 at kn = 8, 100 at kn = 16;")
    document = as_json(asked, answer)
    assert (document["goal"], document["better"]) == ({"iou": 80.0}, "higher")
    assert "better" not in as_json(case(), answer)
    steps, _, _ = figures(asked, answer, [])
    assert steps.title == "Steps to iou above 80"
    assert "first evaluation above the goal" in steps.caption
    assert "still below the goal" in steps.caption


def test_a_trial_ends_at_the_goal_of_the_study_alone():
    stops = ("execution.stop_below.loss=0.5", "execution.stop_at={score: error, below: 1}")
    by_score, by_error = search(*stops, goal=IOU), search(*stops)
    for made, below, stop_at in (
        (by_score, {}, {"score": "iou", "above": 80.0}), (by_error, {"error_percent": 5.0}, None),
    ):  # fmt: skip
        execution = made.cells()[0].recipe.execution
        assert execution.stop_below.model_dump(exclude_none=True) == below
        assert (execution.stop_at and execution.stop_at.model_dump(exclude_none=True)) == stop_at
    assert [cell.key for cell in by_score.cells()] == [cell.key for cell in by_error.cells()]


SPACE = Space((Dimension("effective_lr", 1e-3, 10.0), Dimension("momentum", 0.01, 1.0, "high"),
               Dimension("weight_decay", 1e-4, 1e-4), Dimension("final_lr", 0.01, 1.0, "high")))  # fmt: skip


def test_a_trial_is_a_pure_function_of_seed_minibatch_and_number():
    many = SPACE.draw(16, 0, 64)
    assert SPACE.draw(5, 0, 64) == many[:5]
    assert SPACE.draw(16, 1, 64)[0] != many[0] != SPACE.draw(16, 0, 128)[0]
    for settings in many:
        assert 1e-3 <= settings["effective_lr"] <= 10
        assert 0 <= settings["momentum"] <= 0.99
        assert settings["weight_decay"] == 1e-4
        assert 0.01 <= settings["final_lr"] <= 1
    assert Space((Dimension("effective_lr", 0.1, 0.1),)).draw(2, 0, 8) == [{"effective_lr": 0.1}] * 2


def test_trials_are_spread_more_evenly_than_chance():
    """Of 16 points of a Halton sequence in base 2, scrambled or not, each sixteenth of the range holds one."""
    places = {
        name: sorted(int(16 * np.log(to(s[name]) / low) / np.log(high / low)) for s in SPACE.draw(16, 3, 64))
        for name, low, high, to in (
            ("effective_lr", 1e-3, 10.0, float), ("momentum", 0.01, 1.0, lambda m: 1 - m), ("final_lr", 0.01, 1, float),
        )
    }  # fmt: skip
    assert list(range(16)) in places.values()


def test_the_border_is_the_outer_twentieth_of_a_range_that_could_be_wider():
    settings = {"effective_lr": 9.0, "momentum": 0.0, "weight_decay": 1e-4, "final_lr": 0.99}
    assert SPACE.borders(settings) == ("effective_lr",)
    assert SPACE.borders({**settings, "effective_lr": 0.1, "momentum": 0.9899, "final_lr": 0.0101}) == (
        "momentum", "final_lr",
    )  # fmt: skip
    assert SPACE.borders({**settings, "effective_lr": 1.0}) == ()


@pytest.mark.parametrize(
    "text", ["", "a..b", "3..1", "1..1", "0..1", "1..2..3", "-1..1", "1..1e99", "nan", "\u0661..\u0663"]
)
def test_ranges_that_are_none_are_refused(text):
    with pytest.raises(UsageError, match=r"--lr=.*must be LOW\.\.HIGH or one number"):
        parse_range("--lr", text, 0.0, 1e12)


def test_ranges_are_read():
    assert parse_range("--lr", "1e-3..10", 1e-12, 1e12) == (1e-3, 10.0)
    assert parse_range("--weight-decay", "0", 0.0, 1.0) == (0.0, 0.0)
    assert parse_range("--momentum", "0..0.99", 0.0, 0.9999) == (0.0, 0.99)


def case(*overrides, **fields):
    asked = {"goal": GOAL, "minibatches": (8, 32, 1024), "trials": 4}
    return case_of("steps-to-target", overrides=["data.holdout=287", *overrides], **(asked | fields))


def search(*overrides, **fields):
    return search_of(case(*overrides, **fields))


def doubts(points, asked=None):
    """The warnings of these points."""
    return list(warnings(asked or case(), answer_of_points(points), []))


def drawn(points):
    """Figures of these points."""
    return figures(case(), answer_of_points(points), [])


def test_a_trial_is_the_recipe_at_its_minibatch_with_its_settings_for_the_whole_budget():
    made = search()
    assert [made.budget_steps(kn) for kn in made.minibatches] == [4313, 1079, 200]
    assert [made.interval_steps(kn) for kn in made.minibatches] == [43, 10, 2]
    low, high = made.lr_range(1024)
    assert high / low == pytest.approx(1024, rel=0.01)
    assert low < 0.125 < 0.125 * 32 <= high  # unscaled, and by the linear rule
    for kn in made.minibatches:
        settings = {"effective_lr": 0.5, "momentum": 0.8, "weight_decay": 2e-4, "final_lr": 0.1}
        recipe = made.trial_recipe(kn, settings)
        plan = plan_of(recipe, 1150)
        schedule = schedule_of(recipe, plan)
        assert plan.total_steps == made.budget_steps(kn)
        assert plan.minibatch.images == kn
        assert recipe.minibatch.per_worker == min(kn, 32)
        assert schedule(0) == pytest.approx(0.1)
        assert schedule(plan.total_steps - 1) == pytest.approx(0.01, abs=0.1 / plan.total_steps)
        assert (recipe.optimizer.momentum, recipe.optimizer.weight_decay) == (0.8, 2e-4)
        assert recipe.data.holdout == 287
    plain = made.trial_recipe(32, {**settings, "momentum": 0.0, "final_lr": 1.0})
    assert (plain.optimizer.nesterov, plain.learning_rate.decay.kind) == (False, "none")
    changing = search("optimizer.momentum_changes=[{epoch: 1, momentum: 0.5}]")
    assert changing.trial_recipe(32, settings).optimizer.momentum_changes == ()  # the trial's own holds throughout
    assert len({cell.key for cell in made.cells()}) == 12


def test_an_optimizer_without_momentum_is_searched_without_it():
    made = search("optimizer={name: lamb}")
    names = [dimension.name for dimension in made.space(32).dimensions]
    assert names == ["effective_lr", "weight_decay", "final_lr"]
    assert made.cells()[0].recipe.optimizer.name == "lamb"


def test_minibatches_that_do_not_fit_are_refused():
    with pytest.raises(UsageError, match=r"2048 exceeds the 1150 training images"):
        search(minibatches=(32, 2048))
    with pytest.raises(UsageError, match=r"40 is no multiple of minibatch.per_worker=32"):
        search(minibatches=(32, 40))
    with pytest.raises(UsageError, match=r"minibatch.growth.kind=doubling"):
        search("minibatch.growth={kind: doubling, every_epochs: 10}")


def point(minibatch, steps, half=None, **changes):
    found = {
        "steps_before": steps - 5, "steps_by_half": half or steps, "budget_steps": 5000, "interval_steps": 5,
        "best": trial(0, [1], minibatch=minibatch), "best_value": 4.0, "trials": 8, "reached": 6, "diverged": 1,
        "failed": 0, "goals": ((steps, steps - 5),) * 6, **changes,
    }  # fmt: skip
    return Reached(minibatch, steps, **found)


def test_the_answer_names_regimes_and_the_critical_minibatch():
    points = [point(b, round(s)) for b, s in zip(DOUBLINGS, hyperbola(DOUBLINGS), strict=True)]
    answer = answer_of_points(points)
    assert sentence(case(), answer) == (
        "Steps to error below 5 %: 780 at kn = 8, 31 at kn = 4,096; perfect scaling from 8 to 64, diminishing returns "
        "from 128 to 512, maximal data parallelism from 1,024 to 4,096; S_min (1 + B_crit / B) fits to 1 % with "
        f"{answer.fit.critical_minibatch.text('B_crit', 'images')} and "
        f"{answer.fit.steps_min.text('S_min', 'steps')} (95 %); half efficiency, with the luck of the search: "
        f"{answer.half.interval_text()} images (90 %)."
    )
    assert doubts(points, case("minibatch.per_worker=8")) == []
    steps, lr, epochs = drawn(points)
    assert steps.series[0].y[0] == 780
    assert steps.series[1].y[3] == pytest.approx(780 / 8)  # the ideal line
    assert [mark.label for mark in steps.marks] == [PERFECT, DIMINISHING, MAXIMAL]
    whole = drawn([point(64, 100, steps_before=0, half=120)])[0]
    assert (whole.series[0].low, whole.series[0].high) == ((0.0,), (120.0,))
    (whisker,) = draw(whole, "figure-1", "").svg.findall(".//path[@class='whisker']")
    assert re.fullmatch(r"M[\d.]+ [\d.]+V[\d.]+", whisker.get("d"))
    assert lr.series[1].y[3] == pytest.approx(0.1 * 8)
    assert epochs.series[0].y[0] == pytest.approx(780 * 8 / 1150)


def test_a_search_without_the_recipes_own_weight_decay_and_what_it_leaves_alone_are_said():
    points = [point(b, round(s)) for b, s in zip(DOUBLINGS, hyperbola(DOUBLINGS), strict=True)]
    adam = case("optimizer={name: adamw, weight_decay: 0.01}")
    (line,) = [line for line in doubts(points, adam) if "weight decay" in line]
    assert line == (
        "weight decay was searched from 1e-06 to 0.001, without the recipe's own 0.01: no trial has it; widen "
        "--weight-decay"
    )
    assert "no warmup); beta1, beta2, epsilon stay the recipe's;" in words_asked(adam, [])
    assert "stay the recipe's" not in words_asked(case(), [])
    for decay in ("0.001", "0.0"):
        within = case(f"optimizer={{name: adamw, weight_decay: {decay}}}")
        assert not any("weight decay" in line for line in doubts(points, within))


def test_an_answer_of_too_few_trials_names_no_regime_and_no_critical_minibatch():
    curve = list(zip(DOUBLINGS[:4], hyperbola(DOUBLINGS[:4]), strict=True))
    few = answer_of_points([point(b, round(s), reached=2 if b > 8 else 6) for b, s in curve])
    assert sentence(case(), few) == (
        "Steps to error below 5 %: 780 at kn = 8, 124 at kn = 64; too few trials to tell regimes or B_crit."
    )
    assert {regime.doubt for regime in few.regimes} == {"most minibatches had too few trials"}
    assert few.fit is not None  # the numbers stay in the document
    half = answer_of_points(
        [point(b, round(s), reached=2 if b > 16 else 6) for b, s in curve]
    )  # half of them is not most
    assert "S_min (1 + B_crit / B) fits" in sentence(case(), half)


def test_an_interval_without_a_bound_on_either_side_is_no_answer():
    steps = [(8, 40), (16, 9), (32, 60), (64, 8)]
    answer = answer_of_points([point(b, s, steps_before=s - 1) for b, s in steps])
    assert answer.fit.critical_minibatch.unbounded
    said = sentence(case(), answer)
    assert "too few points, or too much scatter, to tell B_crit: its interval has no bound on either side" in said
    assert "no bound to no bound" not in said + "".join(doubts(answer.points))
    assert Interval(21.0, None, None).text("S_min", "steps") == "S_min not told (no bound on either side)"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"reached": 2}, "kn = 64: too few trials to say: 2 of 8 reached the goal"),
        ({"half": 200}, "half of them would have found 200 steps in place of 100; give more --trials"),
        ({"budget_steps": 110}, "100 steps of a budget of 110: trials that need more were cut"),
        ({"interval_steps": 50}, "100 steps, evaluated every 50: coarse; lower --evaluation-steps"),
        (
            {"best": trial(0, [1], border=("effective_lr", "weight_decay"))},
            "on the border of the search space (effective_lr 0.1, weight_decay 0.0001): better ones may lie beyond; "
            "widen --lr, --weight-decay",
        ),
    ],
)
def test_what_makes_a_point_doubtful_is_said(changes, said):
    (line,) = doubts([point(64, 100, **changes)])
    assert said in line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--minibatches", ""], "the list is empty"),
        (["--minibatches", "64,32"], "must rise"),
        (["--minibatches", "2^4..2^13"], "8192 exceeds the 1293 training images"),
        (["--goal", "error>3"], "must be error<PERCENT"),
        (["--goal", "iou>80"], "execution.stop_at.score: task=classification has no score 'iou'; it has error; name"),
        (["--holdout", "1437"], "--holdout=1437: must leave some of the 1437 training images; lower it"),
        (["data.train_images=1400", "--holdout", "38"], "images beside data.train_images=1400; lower it"),
        (["data.train_images=1000", "--minibatches", "512,1024"], "1024 exceeds the 1000 training images"),
        (["--momentum", "0..1"], "--momentum=0..1: must be LOW..HIGH"),
        (["--momentum", ""], "--momentum=: must be LOW..HIGH"),
        (["--lr", ""], "--lr=: must be LOW..HIGH"),
        (["--momentum", "0.5", "optimizer={name: lamb}"], "optimizer.name=lamb has none"),
    ],
)
def test_bad_input_is_one_line_and_leaves_no_folder(words, said, tmp_path, capsys):
    given = ["--goal", "error<5", "--minibatches", "32,64", "--trials", "2", "--out", str(tmp_path / "s"), *words]
    assert main(["study", "steps-to-target", "digits-cnn", *given]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("begun", "asked", "said"),
    [(6, 1, "every 6 steps at kn = 32, not 1; give --evaluation-steps 6, or"),
     (6, None, "every 6 steps at kn = 32, not 10; give --evaluation-steps 6, or"),
     (None, 1, "every 10 steps at kn = 32, not 1; leave --evaluation-steps out, or")],
)  # fmt: skip
def test_trials_evaluated_at_another_interval_are_refused(begun, asked, said, tmp_path):
    first, then = (search(minibatches=(32,), evaluation_steps=steps) for steps in (begun, asked))
    (cell, *_) = first.cells()
    folder = tmp_path / "runs" / cell.key
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(dump_recipe(cell.recipe))
    check_begun(tmp_path / "runs", first, first.cells())
    with pytest.raises(UsageError, match=re.escape(f"{tmp_path}: holds trials evaluated {said} give another --out")):
        check_begun(tmp_path / "runs", then, then.cells())


def test_damaged_lines_of_evaluations_are_passed_over(tmp_path):
    made = search(minibatches=(32,), trials=1)
    (cell,) = made.cells()
    run = tmp_path / "runs" / cell.key
    run.mkdir(parents=True)
    damaged = (
        '{"step": 5}\n{"step": 6, "error_percent": "x"}\n{"error_percent": 1.0}\n{"step": "7", "error_percent": 1}\n'
    )
    whole = (
        '{"step": 10, "error_percent": null}\n{"step": 20, "error_percent": 7.0}\n{"step": 30, "error_percent": 4.0}\n'
    )
    (run / "evaluations.jsonl").write_text(damaged + whole)
    (found,) = made.points([Outcome(cell, run, "done")])
    assert (found.steps, found.steps_before, found.best_value) == (30, 20, 4.0)
    (run / "recipe.yaml").write_text(dump_recipe(cell.recipe))
    result = {
        "status": "done", "recipe": "", "folder": "", "test_error_percent": 4.0, "test_error_median_last_5": 4.0,
        "test_loss": 1.0, "train_loss": 1.0, "steps": 30, "epochs": 1.0, "images_per_second": 1.0, "wall_seconds": 1.0,
        "weights_sha256": None, "processes": 1, "workers": 1, "per_worker": 1, "stopped_below": {"error_percent": 5.0},
    }  # fmt: skip
    (run / "result.json").write_text(json.dumps(result))
    check_begun(tmp_path / "runs", made, [cell])


@pytest.mark.parametrize(
    ("scores", "changes", "text", "line"),
    [
        ({"iou": 70.0}, {}, "speed>3", "--goal='speed>3': the trials have no score 'speed'; they have iou; name one"),
        ({"iou": 70.0}, {}, "iou<80", "--goal='iou<80': iou is better where it is higher: use iou>80"),
        ({"iou": 70.0}, {"stopped_at": {"score": "iou", "above": 60.0}}, "iou>80", "ended at another goal, {'score': "),
        ({"iou": 70.0}, {"stopped_below": {"loss": 1.0}}, "iou>80", "another goal, {'loss': 1.0}, short of iou above"),
        ({"iou": 70.0}, {"stopped_at": {"score": "iou", "above": 60.0}}, "iou>65", None),
        ({"iou": 70.0}, {}, "iou>80", None),
        ({}, {"status": "diverged"}, "iou>80", None),
        (None, {"status": "failed"}, "iou>80", None),  # killed before it could tell; it will go on
        (None, {}, "iou>80", "--goal='iou>80': the trials have no score 'iou'; they have error; name one"),
    ],
)
def test_finished_trials_answer_for_scores_that_they_have(scores, changes, text, line, tmp_path):
    made = search(minibatches=(32,), trials=1, goal=parse_goal(text))
    (cell,) = made.cells()
    run = tmp_path / "runs" / cell.key
    run.mkdir(parents=True)
    (run / "recipe.yaml").write_text(dump_recipe(cell.recipe))
    lines = [
        '{"step": 5, "scores": null}',
        '{"step": 7, "scores": {"iou": "x"}}',
        '{"step": 10, "scores": {"iou": 70.0}}',
    ]
    (run / "evaluations.jsonl").write_text("\n".join(lines) + "\n")
    result = {
        "status": "done", "recipe": "", "folder": "", "test_error_percent": None, "test_error_median_last_5": None,
        "test_loss": 1.0, "train_loss": 1.0, "steps": 30, "epochs": 1.0, "images_per_second": 1.0, "wall_seconds": 1.0,
        "weights_sha256": None, "processes": 1, "workers": 1, "per_worker": 1, **changes,
    }  # fmt: skip
    if scores is not None:  # results of earlier versions have none
        score = {"name": "iou", "value": scores.get("iou"), "unit": "%", "better": "higher"}
        result |= {"scores": scores, "score": score}
    (run / "result.json").write_text(json.dumps(result))
    if line is None:
        check_begun(tmp_path / "runs", made, [cell])
        return
    with pytest.raises(UsageError, match=re.escape(line)):
        check_begun(tmp_path / "runs", made, [cell])


def test_without_optuna_one_line_says_the_way_out(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "optuna", None)
    given = ["--goal", "error<5", "--minibatches", "32", "--trials", "2", "--out", str(tmp_path / "s")]
    assert main(["study", "steps-to-target", "digits-cnn", *given]) == 2
    assert "pip install 'batchscale[studies]'" in capsys.readouterr().err


def test_a_small_search_for_real_goes_on_and_refuses_a_goal_that_its_trials_were_cut_short_of(tmp_path, capsys):
    out = tmp_path / "study"
    command = [
        "study", "steps-to-target", "digits-cnn", "epochs=1", "--minibatches", "16,64,256,1024", "--trials", "2",
        "--holdout", "287", "--min-steps", "12", "--evaluation-steps", "2", "--lr", "0.3..1", "--momentum", "0.9",
        "--out", str(out), "--json",
    ]  # fmt: skip
    assert main([*command, "--goal", "loss<2"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["rows"]) == 8
    assert {row["status"] for row in found["rows"]} == {"done"}
    assert [p["minibatch"] for p in found["points"]] == [16, 64, 256, 1024]
    for at in found["points"]:
        rows = [row for row in found["rows"] if row["minibatch"] == at["minibatch"]]
        lines = [
            [json.loads(line) for line in (out / row["folder"] / "evaluations.jsonl").read_text().splitlines()]
            for row in rows
        ]
        below = [next((e["step"] for e in each if e["loss"] < 2), None) for each in lines]
        assert at["steps"] == min((step for step in below if step), default=None)
        for row, step in zip(rows, below, strict=True):
            assert row["steps"] == step or (step is None and row["steps"] == at["budget_steps"])
        assert {e["images"] for each in lines for e in each} == {287}
    assert set(found) >= {"rows", "goal", "points", "regimes", "hyperbola", "answer"}
    with (out / "table.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    for row, written in zip(found["rows"], table, strict=True):  # an error of held-out images is no test error
        assert (row["test_error_percent"], written["test_error_percent"]) == (None, "")
        result = json.loads((out / row["folder"] / "result.json").read_text())
        assert row["held_out_error_percent"] == float(written["held_out_error_percent"]) == result["test_error_percent"]
    before = {f: f.stat().st_mtime_ns for f in (out / "runs").rglob("*") if f.is_file()}
    assert main([*command, "--goal", "loss<2.1"]) == 0  # easier: the same runs tell
    assert {f: f.stat().st_mtime_ns for f in (out / "runs").rglob("*") if f.is_file()} == before
    assert json.loads(capsys.readouterr().out)["goal"] == {"loss": 2.1}
    assert [p["interval_steps"] for p in found["points"]] == [2] * 4
    assert main([*command, "--goal", "loss<2", "--evaluation-steps", "1"]) == 2
    assert (
        "holds trials evaluated every 2 steps at kn = 16, not 1; give --evaluation-steps 2" in capsys.readouterr().err
    )
    assert main([*command, "--goal", "loss<0.001"]) == 2
    assert "short of loss below 0.001; give another --out DIR" in capsys.readouterr().err


RIGHT = """
from batchscale.plugins import register_task
from batchscale.task import Classification, ScoreKind


class Right(Classification):
    name = "right"
    score_kinds = (ScoreKind("right", "%", "higher"),)

    def scores(self, evaluated):
        return {"right": 100 - super().scores(evaluated)["error"]}

    def sentence(self, scores, evaluated):
        return f"right {scores['right']:.2f} %"


register_task("right", Right)
"""


def test_a_small_search_for_real_by_a_score_of_a_plugins_task(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "plugins"))
    with tables_put_back():
        write_plugin(tmp_path / "plugins", "right_plugin", RIGHT)
        out = tmp_path / "study"
        command = [
            "study", "steps-to-target", "digits-cnn", "task=right", "epochs=1", "--minibatches", "32,128", "--trials",
            "2", "--holdout", "287", "--min-steps", "12", "--evaluation-steps", "2", "--lr", "0.3..1", "--momentum",
            "0.9", "--plugin", "right_plugin", "--out", str(out), "--json",
        ]  # fmt: skip
        for goal, line in (
            ("right<50", "execution.stop_at.below=50: right is better where it is higher: use above"),
            ("error<5", "execution.stop_below.error_percent: task=right has no score 'error'; it has right"),
        ):
            assert main([*command, "--goal", goal]) == 2
            assert line in capsys.readouterr().err
            assert not out.exists()
        assert main([*command, "--goal", "right>50%"]) == 0
        document = json.loads(capsys.readouterr().out)
    assert (document["goal"], document["better"]) == ({"right": 50.0}, "higher")
    assert any(summary["status"] == "reached" for summary in document["points"])
    for summary in document["points"]:
        firsts, values = [], []
        for row in document["rows"]:
            if row["minibatch"] == summary["minibatch"]:
                text = (out / row["folder"] / "evaluations.jsonl").read_text()
                lines = [json.loads(line) for line in text.splitlines()]
                values += [line["scores"]["right"] for line in lines]
                past = [line["step"] for line in lines if line["scores"]["right"] > 50]
                firsts += past[:1]
                assert row["steps"] == (past[0] if past else summary["budget_steps"])
        assert (summary["steps"], summary["reached"]) == (min(firsts, default=None), len(firsts))
        assert summary["best_value"] == max(values)
