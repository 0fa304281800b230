"""A plan's rows, its intervals and its advice, against numbers that follow from a step time known in closed form."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from support.toy_plans import DEVICES, ToyPhysics, toy_plan

from batchscale.cost.planning.advice import LEAST_GAIN, pareto, stops_paying
from batchscale.cost.planning.document import plan_document
from batchscale.cost.planning.goal import CriticalEstimate, EpochGoal
from batchscale.cost.planning.pace import MeasuredPoint, Pace
from batchscale.cost.planning.plan import make_plan
from batchscale.cost.planning.question import Bounds, Trained
from batchscale.cost.planning.risks import Risks
from batchscale.cost.planning.spans import parse_span, span
from batchscale.cost.planning.words import plan_findings
from batchscale.cost.speeds.priors import shipped_priors
from batchscale.cost.speeds.small_draws import drawn_numbers
from batchscale.cost.speeds.small_form import predict, steps_of
from batchscale.errors import UsageError


def seconds(devices, per_device):
    return float(np.exp(ToyPhysics().best(np.array([float(devices)]), per_device)[1][0]))


def hours(devices, workers):
    kn = 32 * workers
    epochs = 10 * (1 + kn / 4096) / (1 + 2048 / 4096)
    return epochs * 1e6 / kn * seconds(devices, 32 * math.ceil(workers / devices)) / 3600


def test_each_row_is_the_fastest_of_all_choices():
    plan = make_plan(toy_plan())
    for row in plan.rows:
        d = row.choice.devices
        tried = {k: hours(d, k) for k in {64, *(d * 2**j for j in range(7))} if k >= d and 32 * k <= 1e6}
        best = min(tried, key=tried.get)
        assert row.choice.workers == best
        assert row.hours.value == pytest.approx(tried[best])
        assert row.device_hours.value == pytest.approx(d * row.hours.value)
        assert row.cost.value == pytest.approx(2 * row.device_hours.value)
    assert [row.choice.devices for row in plan.rows] == list(DEVICES)
    assert [row.choice.algorithm for row in plan.rows[:2]] == ["ring", "halving_doubling"]


def test_a_worker_may_have_fewer_examples_where_that_is_asked_for():
    trained = Trained("toy", 64, 32, 1_000_000, others=(8, 16))
    plan = make_plan(toy_plan(trained=trained))
    for row in plan.rows:
        d, choice = row.choice.devices, row.choice
        ways = {(2048 // n, n) for n in (8, 16, 32)} | {(d * 2**j, n) for j in range(7) for n in (8, 16, 32)}
        tried = {}
        for k, n in ways:
            if k >= d and k * n <= 1e6:
                epochs = 10 * (1 + k * n / 4096) / (1 + 2048 / 4096)
                tried[k, n] = epochs * 1e6 / (k * n) * seconds(d, n * math.ceil(k / d)) / 3600
        assert row.hours.value == pytest.approx(min(tried.values()))
        assert tried[choice.workers, choice.per_worker] == pytest.approx(row.hours.value)
    strong = [(row.choice.devices, row.choice.workers, row.choice.per_worker) for row in plan.scalings.strong]
    assert strong == [(8, 64, 32), (16, 64, 32), (32, 64, 32), (64, 64, 32), (128, 128, 16), (256, 256, 8)]
    known = make_plan(toy_plan(trained=trained, goal=EpochGoal("10 epochs", 2048.0, 10.0)))
    assert [row.choice.minibatch for row in known.rows] == [2048] * len(DEVICES)
    assert any("another number of images than the recipe's 32" in warning for warning in known.warnings)


def test_what_a_device_holds_and_does_stands_in_every_row():
    for row in plan_document(make_plan(toy_plan()), [])["rows"]:
        assert row["peak_percent"] == pytest.approx(100 * 1e9 * row["per_device"] / (row["step_seconds"] * 1e13))
        assert row["micro_batch"] == row["per_device"]
        assert row["memory_gbyte"] == pytest.approx(1e-3 * row["per_device"])


def test_intervals_hold_their_values_and_widen_away_from_what_is_known():
    rows = make_plan(toy_plan()).rows
    for row in rows:
        for estimate in (row.examples_per_second, row.efficiency, row.epochs, row.hours, row.cost):
            assert estimate.low <= estimate.value <= estimate.high
    widths = [row.seconds.high / row.seconds.low for row in rows]
    assert all(later > earlier * 1.001 for earlier, later in itertools.pairwise(widths))
    known = make_plan(toy_plan(goal=EpochGoal("10 epochs", 2048.0, 10.0)))
    assert all(row.epochs.ends == pytest.approx([10, 10]) for row in known.rows)


def test_efficiency_shares_the_rate_that_nobody_measured():
    first, second = make_plan(toy_plan(devices=(8, 16))).rows
    assert first.efficiency.low == first.efficiency.high == 1
    assert second.efficiency.high / second.efficiency.low < 1.2 < second.hours.high / second.hours.low


def test_a_rate_measured_by_whoever_plans_is_surer_than_one_of_others():
    others, ours = (
        make_plan(toy_plan(pace=Pace(ToyPhysics(), 8, (), known))).rows[0].seconds for known in (False, True)
    )
    widths = [math.log(seconds.high / seconds.low) for seconds in (others, ours)]
    assert others.value == pytest.approx(ours.value)
    assert widths[0] == pytest.approx(widths[1] * 0.23 / 0.05)


def test_without_a_critical_minibatch_the_plan_keeps_to_the_recipes():
    plan = make_plan(toy_plan(goal=EpochGoal("10 epochs", 2048.0, 10.0)))
    assert {row.choice.minibatch for row in plan.rows} == {2048}
    assert [row.choice.devices for row in plan.rows] == [8, 16, 32, 64]  # 64 workers, one a device at the most
    assert any("128 and 256 devices" in warning for warning in plan.warnings)
    assert any("--critical" in warning for warning in plan.warnings)
    findings = plan_findings(plan, [], ())
    assert findings.answer.endswith("; left out: 128 and 256 devices, for which no minibatch has known epochs.")
    with pytest.raises(UsageError, match="--devices=128: toy has 64 workers"):
        make_plan(toy_plan(goal=EpochGoal("10 epochs", 2048.0, 10.0), devices=(128, 256)))


def test_devices_that_fail_all_the_time_are_left_out_with_their_reason_and_refused_where_there_are_no_others():
    plan = make_plan(toy_plan(risks=Risks(1.0), devices=(8, 16384)))
    assert [row.choice.devices for row in plan.rows] == [8]
    assert any("left out: 16,384 devices, for which failures come too often" in line for line in plan.warnings)
    with pytest.raises(UsageError, match=r"--devices=16384: with device_mtbf_hours=1 one of them fails every 0\.22 s"):
        make_plan(toy_plan(risks=Risks(1.0), devices=(16384,)))


def test_more_devices_stop_paying_where_the_next_count_brings_less_than_half_its_share():
    plan = make_plan(toy_plan(devices=tuple(8 * 2**j for j in range(12))))
    gains = [
        math.log(a.hours.value / b.hours.value) / math.log(b.choice.devices / a.choice.devices)
        for a, b in itertools.pairwise(plan.rows)
    ]
    first = next(place for place, gain in enumerate(gains) if gain < LEAST_GAIN)
    assert stops_paying(plan.rows) == plan.rows[first].choice.devices == plan.advice.stops_paying_at
    assert plan.advice.recommended is plan.rows[first]
    assert stops_paying(plan.rows[: first + 1]) is None


def test_no_row_of_the_front_is_beaten_and_every_other_one_is():
    rows = make_plan(toy_plan(devices=tuple(8 * 2**j for j in range(12)))).rows
    front = pareto(rows)
    for row in rows:
        beaten = any(o.hours.value < row.hours.value and o.cost.value < row.cost.value for o in rows)
        assert beaten == (row.choice.devices not in front)
    assert len(front) < len(rows)


def test_a_deadline_takes_the_cheapest_row_that_meets_it_nearly_surely():
    rows = make_plan(toy_plan()).rows
    for limit in (rows[2].hours.high, rows[2].hours.value):
        advice = make_plan(toy_plan(bounds=Bounds(deadline_hours=limit))).advice
        meeting = [row for row in rows if row.hours.high <= limit]
        assert advice.recommended.choice == min(meeting, key=lambda row: row.cost.value).choice
    budget = rows[3].cost.high
    chosen = make_plan(toy_plan(bounds=Bounds(budget=budget))).advice.recommended
    within = [row for row in rows if row.cost.high <= budget]
    assert chosen.choice == min(within, key=lambda row: row.hours.value).choice


def test_a_bound_that_nobody_meets_names_the_nearest_one_that_is_met():
    with pytest.raises(UsageError, match="--deadline=1s") as refused:
        make_plan(toy_plan(bounds=Bounds(deadline_hours=1 / 3600)))
    nearest = str(refused.value).partition("does is --deadline ")[2].partition(",")[0]
    assert make_plan(toy_plan(bounds=Bounds(deadline_hours=parse_span(nearest)))).advice
    with pytest.raises(UsageError, match=r"--budget=0\.01") as refused:
        make_plan(toy_plan(bounds=Bounds(budget=0.01)))
    nearest = str(refused.value).partition("does is --budget ")[2].partition(",")[0]
    assert make_plan(toy_plan(bounds=Bounds(budget=float(nearest)))).advice
    fastest = min(row.hours.high for row in make_plan(toy_plan()).rows)
    with pytest.raises(UsageError, match="within --deadline"):
        make_plan(toy_plan(bounds=Bounds(deadline_hours=fastest, budget=0.01)))


def test_a_plan_of_one_count_says_nothing_of_more_devices():
    question = toy_plan(trained=Trained("toy", 1, 2048, 1_000_000), goal=EpochGoal("10 epochs", 2048.0, 10.0))
    for devices, tail in (((1, 2), "; left out: 2 devices, for which no minibatch has known epochs."), ((1,), ".")):
        findings = plan_findings(make_plan(replace(question, devices=devices)), [], ())
        assert findings.answer.startswith(
            "Take 1 device (the only count that the plan has numbers of): 1 worker of 2,048"
        )
        assert findings.answer.endswith("; whether more devices pay, this one count does not say" + tail)
    assert findings.title == "toy on 1 device"
    with pytest.raises(UsageError, match="none of 1 device meets it"):
        make_plan(replace(question, devices=(1,), bounds=Bounds(deadline_hours=1e-6)))


def test_strong_and_weak_scaling_begin_alike():
    both = make_plan(toy_plan()).scalings
    assert both.strong[0].choice == both.weak[0].choice
    assert {row.choice.minibatch for row in both.strong} == {2048}
    assert [row.choice.workers for row in both.weak] == [8 * d for d in DEVICES]


def points(*measured):
    return tuple(MeasuredPoint(d, n, s, f"row {d}") for d, n, s in measured)


def test_a_plan_goes_through_its_points_and_beyond_them_as_the_small_form_says():
    measured = points((8, 32, 0.1), (16, 32, 0.104), (32, 32, 0.11))
    pace = Pace(ToyPhysics(), 8, measured)
    counts = np.array([8.0, 16, 32, 64, 512])
    draws = ToyPhysics().best(counts, 32)[1] + pace.corrections(counts, 32)
    assert np.exp(draws[:, :3]) == pytest.approx(np.tile([0.1, 0.104, 0.11], (len(draws), 1)))
    hosts, logs = counts[:3] / 8, np.log([0.1, 0.104, 0.11])
    expected = predict(shipped_priors().medians, hosts, logs, counts[3:] / 8)
    drawn = np.quantile(draws[:, 3:], (0.05, 0.5, 0.95), axis=0).T
    assert drawn == pytest.approx(expected, abs=0.006)


def test_inside_one_host_the_cost_of_leaving_it_is_drawn_too():
    medians = shipped_priors().medians
    hosts, logs = np.array([0.25, 1.0]), np.log([0.1, 0.101])
    expected = predict(medians, hosts, logs, np.array([2.0, 16.0]))
    numbers = drawn_numbers(medians, steps_of(hosts, logs).those(leaving=False))
    beyond = logs[-1] + numbers.beyond(np.log2([2.0, 16.0]), np.array([True, True]))
    drawn = np.quantile(beyond, (0.05, 0.5, 0.95), axis=0).T
    assert drawn == pytest.approx(expected, abs=0.01)


def test_physics_brings_points_of_other_sizes_together():
    physics = ToyPhysics()
    sizes = {8: 64, 16: 32, 32: 32}
    measured = points(*((d, n, 1.5 * seconds(d, n)) for d, n in sizes.items()))  # everything half as long again
    pace = Pace(physics, 8, measured)
    counts = np.array([8.0, 16.0, 32.0])
    for per_device in (32, 128):
        assert np.median(np.exp(pace.corrections(counts, per_device)), axis=0) == pytest.approx(1.5, rel=0.003)
    assert np.exp(pace.middle(counts)) == pytest.approx(1.5)


def test_a_pair_that_was_not_measured_has_a_spread_at_every_count_and_a_measured_one_has_none():
    pace = Pace(ToyPhysics(), 8, points((8, 32, 0.1), (16, 64, 0.12)))
    counts = np.array([8.0, 16.0])
    widths = {n: np.std(pace.corrections(counts, n), axis=0) for n in (32, 64, 128)}
    assert widths[32] == pytest.approx([0, 0.05], abs=1e-3)
    assert widths[64] == pytest.approx([0.05, 0], abs=1e-3)
    assert widths[128] == pytest.approx([0.1, 0.05], abs=1e-3)


def test_critical_minibatches_are_drawn_within_their_interval_and_open_ends_reach_far():
    bounded = np.exp(CriticalEstimate(4096, 2048, 6000, "").log_draws())
    assert np.mean(bounded < 2048) == pytest.approx(0.05, abs=0.004)
    assert np.mean(bounded > 6000) == pytest.approx(0.05, abs=0.004)
    goal = EpochGoal("", 256.0, 10.0, critical=CriticalEstimate(4096, 2048, None, ""))
    epochs = np.exp(goal.log_epochs(np.array([256.0, 65536.0])))
    assert epochs[:, 0] == pytest.approx(10)
    assert np.quantile(epochs[:, 1], 0.05) < 11  # B_crit may lie so far above that the epochs do not rise


def test_the_document_has_the_keys_that_others_read():
    document = plan_document(
        make_plan(toy_plan(trained=Trained("toy", 64, 32, 10**6, "sequences", ("tokens", 64)))), []
    )
    assert {"rows", "recommended", "stops_paying_at", "warnings", "pareto", "scaling"} <= set(document)
    for row in document["rows"]:
        assert {"devices", "minibatch", "algorithm", "examples_per_second", "efficiency", "epochs", "hours", "cost",
                "interval"} <= set(row)  # fmt: skip
        assert row["interval"] == row["intervals"]["hours"]
        assert row["tokens_per_second"] == pytest.approx(64 * row["examples_per_second"])
        assert row["minibatch"] == row["workers"] * row["per_worker"]


@pytest.mark.parametrize(("text", "hours_"), [("2h", 2), ("90m", 1.5), ("1d12h", 36), ("45s", 0.0125), ("1.5h", 1.5)])
def test_spans_are_read_as_written(text, hours_):
    assert parse_span(text) == pytest.approx(hours_)
    assert parse_span(span(hours_)) == pytest.approx(hours_, rel=0.02)
    assert parse_span(span(hours_ * 1.0001, up=True)) >= hours_ * 1.0001


@pytest.mark.parametrize("text", ["", "2", "-2h", "0h", "2 h", "h", "2x", "nanh", "infh"])
def test_what_is_no_span_is_none(text):
    assert parse_span(text) is None
