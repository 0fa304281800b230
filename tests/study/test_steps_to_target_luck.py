"""The interval of half efficiency: covers a known truth as often as it says, and holds the luck of the search."""

import csv
import math
from dataclasses import replace

import numpy as np
import pytest
from support.cases import case_of
from support.pages import ROOT
from support.searches import CRITICAL, MINIBATCHES, searched

from batchscale.hyperbola import fit, log_critical_of_many
from batchscale.study.steps_to_target.answer import answer_of_points, as_json
from batchscale.study.steps_to_target.figures import figures
from batchscale.study.steps_to_target.luck import draw_again, half_efficiency
from batchscale.study.steps_to_target.trials import Goal, Reached, expected_least
from batchscale.study.steps_to_target.words import sentence, warnings


def coverage(repeats, *, trials, seed, harder=1.0, minibatches=MINIBATCHES):
    """The share of made-up searches whose interval, its scatter alone, and its search alone hold the truth."""
    generator = np.random.default_rng(seed)
    answers = [
        half_efficiency(searched(generator, trials, harder=harder, minibatches=minibatches), resamples=200)
        for _ in range(repeats)
    ]
    return [
        np.mean([(low or 0) <= CRITICAL <= (high or math.inf) for low, high in (getattr(a, name) for a in answers)])
        for name in ("interval", "scatter", "search")
    ]


def test_the_interval_holds_the_truth_and_trials_drawn_again_alone_do_not():
    whole, _, search = coverage(200, trials=32, seed=32)
    assert whole > 0.87
    assert search < whole - 0.05


@pytest.mark.slow
@pytest.mark.parametrize(
    ("trials", "harder", "minibatches", "least", "most"),
    [
        (8, 1.0, MINIBATCHES, 0.90, 0.98),
        (16, 1.0, MINIBATCHES, 0.90, 0.98),
        (32, 1.0, MINIBATCHES, 0.90, 0.98),
        (16, 1.0, MINIBATCHES[::2], 0.90, 0.99),
        (32, 4.0, MINIBATCHES, 0.75, 0.92),
    ],
)
def test_the_interval_holds_the_truth_in_a_thousand_searches(trials, harder, minibatches, least, most):
    """At least as often as it says where luck is alike at all minibatches; too seldom where it grows fourfold."""
    whole, scatter, search = coverage(1000, trials=trials, seed=trials, harder=harder, minibatches=minibatches)
    print(f"{trials} trials, {len(minibatches)} minibatches, x{harder:g}: {whole:.3f} ({scatter:.3f}, {search:.3f})")
    assert least <= whole <= most


def test_many_curves_are_fitted_as_each_alone():
    generator = np.random.default_rng(3)
    steps = 30 * (1 + 60 / np.array(MINIBATCHES)) * np.exp(0.2 * generator.standard_normal((40, len(MINIBATCHES))))
    reached = generator.random(steps.shape) < 0.8
    reached[:, :4] |= reached.sum(axis=1, keepdims=True) < 4
    together = log_critical_of_many(MINIBATCHES, np.where(reached, np.log(steps), 1e6), reached)
    for i in range(len(steps)):
        kn, alone = np.array(MINIBATCHES)[reached[i]], steps[i][reached[i]]
        critical = fit([int(b) for b in kn], list(alone), list(alone)).critical_minibatch.value
        if math.isfinite(together[i]):
            assert together[i] == pytest.approx(math.log(critical), abs=2e-3)
        else:  # at an end; those of fewer points lie further in
            assert critical is None or not 0.01 < critical / CRITICAL < 100


def test_curves_without_a_bend_lie_beyond_and_of_two_points_nowhere():
    kn = np.array([8, 16, 32, 64])
    curves = np.log([[12.0] * 4, list(640 / kn), list(640 / kn)])
    reached = np.array([[True] * 4, [True] * 4, [True, True, False, False]])
    low, high, unknown = log_critical_of_many(kn, curves, reached)
    assert (low, high) == (-math.inf, math.inf)
    assert math.isnan(unknown)


def exact(lucky=1.0, others=1.0):
    """An exact hyperbola, evaluated at every moment; at each minibatch one lucky trial among four."""
    generator = np.random.default_rng(0)
    points = searched(generator, 4, luck=0.0, failing=0.0)
    made = []
    for point in points:
        best = 3000 * (1 + CRITICAL / point.minibatch)
        goals = ((best * lucky, best * lucky), *(((best * others, best * others),) * 3))
        made.append(replace(point, steps=goals[0][0], steps_before=goals[0][1], goals=goals, steps_by_half=goals[0][0]))
    return made


def test_trials_that_are_all_alike_leave_the_truth_alone():
    answer = half_efficiency(exact())
    assert answer.minibatch == pytest.approx(CRITICAL, rel=1e-6)
    assert answer.interval == pytest.approx((CRITICAL, CRITICAL), rel=1e-3)
    assert not answer.other_form


def test_the_least_of_trials_drawn_again_is_the_best_as_often_as_it_is_among_them():
    """1 - (1 - 1/T)^T of them: 0.684 of four; the others are a doubling away, so log S varies by its binomial."""
    share = 1 - 0.75**4
    drawn = draw_again(exact(others=2.0), 4000)
    assert drawn.variance == pytest.approx((1 - share) * math.log(2) ** 2, rel=0.03)


def test_luck_widens_what_the_scatter_of_an_exact_curve_does_not():
    answer = half_efficiency(exact(others=1.5))
    low, high = answer.scatter
    assert high / low == pytest.approx(1, abs=1e-3)
    low, high = answer.interval
    assert low < CRITICAL / 1.2 < CRITICAL * 1.2 < high
    assert (low, high) == pytest.approx(answer.search, rel=1e-3)


def test_a_minibatch_that_one_trial_of_four_reached_leaves_too_few_points_and_no_bound():
    """Of the curves drawn again 1 - 0.684 ^ 2 lose one of two such points, and with four in all one may stay short."""
    points = [point for point in exact() if point.minibatch in (8, 32, 128, 512)]
    rare = [replace(point, goals=point.goals[:1]) if point.minibatch in (128, 512) else point for point in points]
    assert half_efficiency(points).interval != (None, None)
    answer = half_efficiency(rare)
    assert answer.search == (None, None)  # both lost in 0.316 ^ 2 = 10 %: beyond both ends
    assert (answer.minibatch, answer.interval, answer.why) == (None, (None, None), "no bound on either side")


def test_what_half_of_the_trials_would_have_told_moves_the_end_that_more_trials_move():
    points = exact()
    twice = [replace(p, steps_by_half=3000 * (1 + CRITICAL / 2 / p.minibatch)) for p in points]
    rising = half_efficiency(twice)
    assert rising.by_half == pytest.approx(CRITICAL / 2, rel=1e-3)
    assert rising.interval == pytest.approx((CRITICAL, 2 * CRITICAL), rel=2e-3)
    falling = half_efficiency([replace(p, steps_by_half=3000 * (1 + 3 * CRITICAL / p.minibatch)) for p in points])
    assert falling.interval == pytest.approx((CRITICAL / 3, CRITICAL), rel=2e-3)
    assert (rising.unsettled, falling.unsettled, half_efficiency(points).unsettled) == (True, True, False)
    flat = half_efficiency([replace(p, steps_by_half=3000.0) for p in points])
    assert flat.interval[1] is None
    assert flat.as_json()["minibatch_by_half"] is None
    assert flat.unsettled


def test_the_measured_curve_of_the_docs_keeps_its_value_and_has_the_interval_they_tell():
    """docs/figures/steps-simple-cnn.csv: 32 trials at each of 1 to 1,024, error below 3 %, evaluated every 5 steps."""
    with (ROOT / "docs" / "figures" / "steps-simple-cnn.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    points = []
    for minibatch in dict.fromkeys(int(row["minibatch"]) for row in rows):
        trials = [row for row in rows if int(row["minibatch"]) == minibatch]
        budget = max(int(row["steps"]) for row in trials)
        ended = (int(row["steps"]) for row in trials if float(row["held_out_error_percent"] or 100) < 3)
        goals = tuple((steps, steps - 5) for steps in sorted(ended))
        every = [steps for steps, _ in goals] + [budget] * (len(trials) - len(goals))
        half = expected_least(every, len(trials) // 2)
        points.append(Reached(minibatch, *goals[0], half, budget, 5, None, None, len(trials), len(goals), 0, 0, goals))
    answer = answer_of_points(points)
    assert [round(end, 1) for end in (answer.half.minibatch, *answer.half.interval)] == [33.4, 25.9, 47.7]
    assert answer.fit.critical_minibatch.text("B_crit", "images") == "B_crit = 33.4 (24.6 to 45.3) images"
    assert (answer.half.unsettled, answer.half.other_form, answer.few_trials) == (False, False, False)


def of(points, **fields):
    """The question that they answer, and the answer."""
    asked = {"goal": Goal("error", 5.0), "minibatches": MINIBATCHES, "trials": 4} | fields
    return case_of("steps-to-target", overrides=["data.holdout=287"], **asked), answer_of_points(points)


def whole(points):
    """As evaluated: whole steps."""
    return [
        replace(
            p,
            steps=round(p.steps),
            steps_before=round(p.steps) - 1,
            goals=tuple((round(s), round(s) - 1) for s, _ in p.goals),
        )
        for p in points
    ]


def test_the_document_has_the_form_of_a_study_of_branches():
    case, answer = of(whole(exact(others=1.2)))
    (entry,) = as_json(case, answer)["critical"]
    assert (entry["step"], entry["definition"], entry["resolved"], entry["why"]) == (
        None,
        "half_efficiency",
        True,
        None,
    )
    assert entry["minibatch"] == as_json(case, answer)["hyperbola"]["critical_minibatch"]["value"]
    low, high = entry["interval"]
    assert low < entry["minibatch"] < high
    assert not {"minibatch_tokens", "interval_tokens"} & set(entry)
    tokens = answer.half.as_json("tokens", 64)
    assert tokens["minibatch_tokens"] == 64 * entry["minibatch"]
    assert tokens["interval_tokens"] == [64 * low, 64 * high]
    assert f"; half efficiency, with the luck of the search: {low:.3g} to {high:.3g} images (90 %)." in sentence(
        case, answer
    )
    (mark,) = figures(case, answer, [])[2].marks
    assert (mark.label, mark.x, mark.x_end) == ("half efficiency", low, high)


@pytest.mark.parametrize(
    ("steps", "interval", "why"),
    [
        (lambda b: 3000.0, (None, 8.0), "below the smallest minibatch that reached the goal: a bound, no measurement"),
        (lambda b: 3e6 / b, (1024.0, None), "above the largest minibatch that reached the goal: a bound, no measure"),
    ],
)
def test_what_is_not_resolved_has_no_value_and_a_bound_that_is_not_clipped(steps, interval, why):
    points = [
        replace(p, steps=steps(p.minibatch), steps_before=steps(p.minibatch), steps_by_half=steps(p.minibatch),
                goals=((steps(p.minibatch), steps(p.minibatch)),) * 4)
        for p in exact()
    ]  # fmt: skip
    case, answer = of(points)
    (entry,) = as_json(case, answer)["critical"]
    assert (entry["minibatch"], entry["resolved"], tuple(entry["interval"])) == (None, False, interval)
    assert entry["why"].startswith(why)
    assert figures(case, answer, [])[2].marks == ()


def test_few_points_and_few_trials_are_said():
    case, answer = of(exact()[:3])
    (entry,) = as_json(case, answer)["critical"]
    assert (entry["minibatch"], entry["interval"]) == (None, [None, None])
    assert entry["why"] == "fewer than 4 minibatches reached the goal"
    case, answer = of([replace(p, reached=2) for p in exact()])
    (entry,) = as_json(case, answer)["critical"]
    assert (entry["minibatch"], entry["why"]) == (None, "most minibatches had too few trials")


def test_an_unsettled_value_and_a_curve_of_another_form_are_warned_of():
    case, answer = of([replace(p, steps_by_half=3000 * (1 + 40 / p.minibatch)) for p in exact()])
    (line,) = [line for line in warnings(case, answer, []) if "unsettled" in line]
    assert line == (
        "B_crit is unsettled: half of the trials would have told 40 images in place of 60; give more --trials"
    )
    waves = [1.5, 0.7, 1.5, 0.7, 1.5, 0.7, 1.5, 0.7]
    bent = [
        replace(p, steps=p.steps * f, steps_before=p.steps * f, steps_by_half=p.steps * f,
                goals=((p.steps * f, p.steps * f),) * 4)
        for p, f in zip(exact(), waves, strict=True)
    ]  # fmt: skip
    assert any("and the luck of the search explains" in line for line in warnings(*of(bent), []))
    assert not any("another form" in line for line in warnings(*of(exact()), []))
