"""A plan that decisions extend: equal to a count by hand, certain where it says so, the same after a resume."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchscale.minibatch import Minibatch, StepPlan
from batchscale.update.growing import Decision, GrowingPlan, GrowthRule


@st.composite
def cases(draw):
    images = draw(st.integers(60, 150))
    workers, n = draw(st.integers(2, 4)), draw(st.integers(1, 3))
    start = StepPlan(Minibatch(workers, n), images, draw(st.sampled_from([2, 3.3])))
    rule = GrowthRule(
        every_examples=draw(st.integers(1, 80)),
        confirm=draw(st.integers(1, 3)),
        hold_examples=draw(st.sampled_from([0, 0, 50, 200])),
        delay_steps=draw(st.integers(4, 9)),
        largest=draw(st.integers(2 * workers * n, 60)),
    )
    return start, rule, draw(st.lists(st.booleans(), min_size=40, max_size=40))


def counted_by_hand(start, rule, verdicts):
    """The examples of every step, and the decisions, by counting images one step after the other."""
    verdicts = iter(verdicts)
    n, changes = start.minibatch.per_worker, {0: start.minibatch.workers}
    end = start.epochs * start.training_images
    sizes, decisions, last, in_a_row, judged_last, doubled_at = [], [], 0, 0, 0, None

    def size(step):
        return n * changes[max(first for first in changes if first <= step)]

    def coming(step):
        """Images before a step to come."""
        return sum(sizes) + sum(size(s) for s in range(len(sizes), step))

    while sum(sizes) < end - 1e-9:
        sizes.append(size(len(sizes)))
        effect = len(sizes) + rule.delay_steps
        if sum(sizes) // rule.every_examples == last or coming(effect) >= end - 1e-9:
            continue
        last = sum(sizes) // rule.every_examples
        passes, judged = next(verdicts, False), size(effect)
        in_a_row = (in_a_row + 1 if judged == judged_last else 1) if passes else 0
        judged_last = judged
        held = doubled_at is None or coming(effect) - doubled_at >= rule.hold_examples
        grows = in_a_row >= rule.confirm and held and 2 * judged <= rule.largest
        decisions.append((len(sizes), judged, passes, effect if grows else None))
        if grows:
            doubled_at = coming(effect)
            changes[effect] = 2 * judged // n
    return sizes, decisions


def walked(plan, verdicts, after=lambda plan, step: None):
    """The plan after all of its steps."""
    verdicts = iter(verdicts)
    step = 0
    while step < plan.total_steps:
        step += 1
        if plan.is_due(step):
            plan.decide(next(verdicts, False), {})
        after(plan, step)
    return plan


def walk(start, rule, verdicts, after=lambda plan, step: None):
    return walked(GrowingPlan(start, rule), verdicts, after)


@settings(max_examples=60)
@given(cases())
def test_steps_and_decisions_are_those_counted_by_hand(case):
    start, rule, verdicts = case
    sizes, decisions = counted_by_hand(start, rule, verdicts)
    plan = walk(start, rule, verdicts)
    assert [plan.minibatch_at(step).images for step in range(plan.total_steps)] == sizes
    assert [(d.step, d.minibatch, d.passes, d.first_step) for d in plan.decisions] == decisions
    assert plan.images(plan.total_steps) == sum(sizes)
    assert plan.as_stated == start


@settings(max_examples=60)
@given(cases())
def test_what_is_certain_never_changes_and_nothing_else_comes_than_what_was_reachable(case):
    start, rule, verdicts = case
    promised, most = [], []

    def ask(plan, step):
        for ahead in range(step, min(step + 4, plan.total_steps)):  # the most that a feed reads in advance
            certain = plan.same_until(ahead)
            assert certain > ahead
            promised.append((ahead, certain, plan.minibatch_at(ahead)))
        most.append((plan.total_steps, plan.total_is_certain, set(plan.reachable(step))))

    plan = walk(start, rule, verdicts, ask)
    final = [plan.minibatch_at(step) for step in range(plan.total_steps)]
    for step, certain, minibatch in promised:
        assert set(final[step:certain]) <= {minibatch}
    for step, (total, certain, reachable) in enumerate(most, start=1):
        assert total >= plan.total_steps
        assert not certain or total == plan.total_steps
        assert set(final[step:]) <= reachable
    assert set(final) <= set(GrowingPlan(start, rule).reachable())


@settings(max_examples=60)
@given(cases(), st.integers(0, 40))
def test_a_plan_restored_from_its_decisions_is_the_same(case, count):
    start, rule, verdicts = case
    plan = walk(start, rule, verdicts)
    kept = [Decision.from_json(decision.as_json()) for decision in plan.decisions[:count]]
    again = GrowingPlan(start, rule)
    again.restore(kept)
    for decision in plan.decisions[count:]:
        assert again.is_due(decision.step)
        assert again.decide(decision.passes, {}) == decision
    assert again.phases == plan.phases
    assert (again.total_steps, again.decision_step) == (plan.total_steps, plan.decision_step)


def doubling(largest=64, hold=0):
    """From 2 images a step: the first decision at step 5, 10 images, takes effect at step 9, after 18."""
    return GrowingPlan(StepPlan(Minibatch(2, 1), 100, 2), GrowthRule(10, 1, hold, 4, largest))


@pytest.mark.parametrize(("hold", "doubles"), [(20, True), (21, False)])
def test_a_doubling_waits_for_as_many_examples_as_are_stated_and_no_more(hold, doubles):
    """The second decision, at step 10 and 22 images, would take effect at step 14, after 38: 20 behind the first."""
    plan = doubling(hold=hold)
    assert plan.decide(True, {}).first_step == 9
    assert plan.decision_step == 10
    assert (plan.decide(True, {}).first_step == 14) == doubles


def test_the_steps_are_certain_as_soon_as_nothing_can_change_them():
    plan = doubling(largest=4)
    assert not plan.total_is_certain
    plan.decide(True, {})
    assert plan.may_decide
    assert plan.total_is_certain
    never = doubling()
    while never.may_decide:
        assert not never.total_is_certain
        never.decide(False, {})
    assert never.total_is_certain


def test_the_fastest_plan_doubles_as_early_as_it_may():
    plan, fastest = walked(doubling(16), [True] * 99), doubling(16).fastest
    assert fastest.phases == plan.phases
    assert [phase.minibatch.images for phase in fastest.phases] == [2, 4, 8, 16]
    assert not isinstance(fastest, GrowingPlan)


def test_a_branch_holds_its_trunks_decisions_and_no_others():
    trunk = walked(doubling(), [True, False])
    held = replace(trunk.as_stated, growth=trunk.growth)
    branch = GrowingPlan(held, trunk.rule, trunk.decisions)
    assert branch.phases == trunk.phases
    assert (branch.decisions, branch.decision_step) == (trunk.decisions, trunk.decision_step)
    branch.restore(trunk.decisions)
    assert branch.phases == trunk.phases
    with pytest.raises(ValueError, match="decisions of another trunk"):
        branch.restore(trunk.decisions[:1])
