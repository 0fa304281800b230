"""A minibatch that grows by decisions taken during the run: when one is due, what it makes of the plan of steps.

Decision i is taken after the first step by whose end i E examples have been trained on (those that one step passes at
once are one), from numbers that all processes hold. Where the measure asks for a larger minibatch in c decisions in a
row, and the last doubling is H examples back, the workers double, from D steps later on:

    k(t) = 2 k(t - 1),   t = t_i + D,   where 2 k(t - 1) n <= largest

D steps later, because the feed makes steps ready in advance: what it may have read must not change. So the plan is a
function of the recipe and the decisions so far, whatever W is, and however fast a machine.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

from batchscale.minibatch import Change, Minibatch, StepPlan


@dataclass(frozen=True)
class GrowthRule:
    """When the minibatch may double, whatever the measure.

    Args:
        every_examples: E.
        confirm: c, decisions in a row that must agree: one measure that errs changes nothing.
        hold_examples: H, the fewest between two doublings.
        delay_steps: D, more than the feed reads in advance.
        largest: of a minibatch, in examples.
    """

    every_examples: int
    confirm: int
    hold_examples: int
    delay_steps: int
    largest: int


@dataclass(frozen=True)
class Decision:
    """What was decided after a step.

    Attributes:
        step: steps done.
        minibatch: examples of the minibatch that was judged, kn.
        passes: whether the measure asks for a larger one.
        first_step: of the larger one; None where it stays.
        workers: k of the larger one; None where it stays.
        numbers: of the measure, for the record.
    """

    step: int
    minibatch: int
    passes: bool
    first_step: int | None = None
    workers: int | None = None
    numbers: Mapping[str, float | int | None] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """For a checkpoint, and for result.json."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Of a checkpoint."""
        return cls(**content)


class GrowingPlan(StepPlan):
    """The plan of steps as far as it is decided; every part of a run asks this one object.

    Its steps up to ``same_until`` are certain; ``total_steps`` holds unless the minibatch grows further.

    Args:
        start: the plan without decisions of this run.
        rule: when the minibatch may double.
        earlier: of a branch, the decisions of its trunk, which ``start`` holds.
    """

    rule: GrowthRule
    decisions: tuple[Decision, ...]
    decision_step: int

    def __init__(self, start: StepPlan, rule: GrowthRule, earlier: Sequence[Decision] = ()) -> None:
        self._start, self._earlier, self.rule = start, tuple(earlier), rule
        self._adopt(self._earlier)

    @property
    def as_stated(self) -> StepPlan:
        return self._start

    def restore(self, decisions: Sequence[Decision]) -> None:
        """Be the plan after these decisions, the trunk's among them."""
        if tuple(decisions[: len(self._earlier)]) != self._earlier:
            raise ValueError("decisions of another trunk")
        self._adopt(tuple(decisions))

    def _adopt(self, decisions: tuple[Decision, ...]) -> None:
        plan = self._start
        for decision in decisions[len(self._earlier) :]:
            if decision.first_step is not None and decision.workers is not None:
                grown = replace(plan.phases[-1].minibatch, workers=decision.workers)
                change = Change(plan.epoch_at(decision.first_step), grown)
                plan = replace(plan, growth=(*plan.growth, change))
        examples = (plan.images(decisions[-1].step) if decisions else 0) // self.rule.every_examples + 1
        following = _steps_holding(plan, examples * self.rule.every_examples)
        # The feed's threads ask meanwhile: all that a plan works out once is worked out, then changes at once.
        worked_out = {"phases": plan.phases, "_first_steps": plan._first_steps, "total_steps": plan.total_steps}
        vars(self).update({**vars(plan), **worked_out, "decisions": decisions, "decision_step": following})

    @property
    def fastest(self) -> StepPlan:
        """The plan that grows as early as it may, to its largest minibatch: what rules must be able to follow."""
        plan = GrowingPlan(self._start, self.rule, self._earlier)
        while plan.may_decide and len(plan.reachable(plan.effect_step)) > 1:
            plan.decide(True, {})
        return replace(plan._start, growth=plan.growth)

    @property
    def effect_step(self) -> int:
        """The first step that the next decision can change."""
        return self.decision_step + self.rule.delay_steps

    def is_due(self, steps: int) -> bool:
        """Whether a decision is due after so many steps: one that can still change the run."""
        return steps == self.decision_step and self.may_decide

    @property
    def may_decide(self) -> bool:
        """Whether a step is left that the next decision can change."""
        return self.effect_step < self.total_steps

    @property
    def total_is_certain(self) -> bool:
        return not self.may_decide or len(self.reachable(self.effect_step)) == 1

    def same_until(self, step: int) -> int:
        return min(super().same_until(step), max(self.effect_step, step + 1))

    def reachable(self, step: int = 0) -> tuple[Minibatch, ...]:
        phases = super().reachable(step)
        doubled = (replace(last, workers=last.workers * 2**i) for last in phases[-1:] for i in itertools.count(1))
        return (*phases, *itertools.takewhile(lambda grown: grown.images <= self.rule.largest, doubled))

    def decide(self, passes: bool, numbers: Mapping[str, float | int | None]) -> Decision:
        """Take the decision that is due, and be the plan after it.

        Args:
            passes: whether the measure asks for a larger minibatch than ``judged``.
            numbers: of the measure.
        """
        decision = Decision(self.decision_step, self.judged.images, passes, numbers=dict(numbers))
        workers = 2 * self.judged.workers
        fits = workers * self.judged.per_worker <= self.rule.largest
        if fits and self._agreed(decision) and self._held():
            decision = replace(decision, first_step=self.effect_step, workers=workers)
        self._adopt((*self.decisions, decision))
        return decision

    @property
    def judged(self) -> Minibatch:
        """The minibatch that the next decision is about."""
        return self.minibatch_at(self.effect_step)

    def _agreed(self, decision: Decision) -> bool:
        """Whether this decision ends c in a row that ask for more than the same minibatch."""
        last = [*self.decisions, decision][-self.rule.confirm :]
        agreeing = (one.passes and one.minibatch == decision.minibatch for one in last)
        return len(last) == self.rule.confirm and all(agreeing)

    def _held(self) -> bool:
        """Whether the last doubling is far enough back."""
        doublings = [one.first_step for one in self.decisions if one.first_step is not None]
        since = self.images(self.effect_step) - self.images(doublings[-1]) if doublings else math.inf
        return since >= self.rule.hold_examples


def _steps_holding(plan: StepPlan, examples: int) -> int:
    """The first number of steps by which so many examples are trained on; the last phase goes on without end."""
    phase = next((p for p in reversed(plan.phases) if plan.images(p.first_step) < examples), plan.phases[0])
    return phase.first_step + math.ceil((examples - plan.images(phase.first_step)) / phase.minibatch.images)
