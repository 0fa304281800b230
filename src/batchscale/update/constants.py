"""The constants of a step by the scaling rules: a function of the step's minibatch, as the lr's factor is one.

A step's kappa = kn / reference minibatch is a product: what the first trunk's minibatch, grown as far as it has, makes
of it by the trunk's rule, and the factor of each branch by the branch's own. A constant goes through all of them in
turn. Nothing is kept for it in a checkpoint.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Protocol

from batchscale.update.rules import RULES, Number
from batchscale.update.schedule import PlannedSchedule

_LARGEST_DENOMINATOR = 10**9  # of a branch's factor, which is held as a float


class HasKappa(Protocol):
    """An average whose decay is that of a step of the reference minibatch."""

    kappa: float


@dataclass(frozen=True)
class RuledFactor:
    """A part of a step's kappa, and the rule by which it acts.

    Attributes:
        rule: a member of RULES.
        kappa: the factor.
    """

    rule: str
    kappa: Fraction


@dataclass(frozen=True)
class PlannedConstants:
    """Every constant that rules change, at every step of a plan.

    Attributes:
        schedule: the lr of the run, with its branches.
        rule: of the run, of a branch that of the first of its trunks.
        reference_minibatch: examples; what is stated holds there.
        stated: the optimizer's constants that a rule may change, by name.
        scales_decay: decoupled weight decay is x kappa / the lr's factor; Wang and Aitchison 2024.
    """

    schedule: PlannedSchedule
    rule: str
    reference_minibatch: int
    stated: Mapping[str, float] = field(default_factory=dict)
    scales_decay: bool = False

    def factors(self, step: int) -> tuple[RuledFactor, ...]:
        """The parts of this step's kappa: of the first trunk's minibatch, then of every branch that has begun."""
        branches = [branch for branch in self.schedule.branches if step >= branch.first_step]
        factors = [Fraction(b.minibatch_factor).limit_denominator(_LARGEST_DENOMINATOR) for b in branches]
        grown = self.kappa(step) / math.prod(factors, start=Fraction(1))
        ruled = (RuledFactor(b.rule, factor) for b, factor in zip(branches, factors, strict=True))
        return RuledFactor(self.rule, grown), *ruled

    def kappa(self, step: int) -> Fraction:
        """The step's examples over the reference minibatch."""
        return Fraction(self.schedule.plan.minibatch_at(step).images, self.reference_minibatch)

    def lr_factor(self, step: int) -> float:
        """What the rules multiply the reference lr by; growth may leave the lr as it was."""
        first = self.schedule.plan.minibatch.images / self.reference_minibatch
        return RULES[self.rule].lr(first) * self.schedule.factor(step)

    def stages(self, name: str, step: int) -> list[tuple[RuledFactor, Number]]:
        """(part of kappa, what it finds) of every part that acts on one of the optimizer's constants, in turn."""
        constant: Number = Fraction(str(self.stated[name]))
        stages = []
        for factor in self.factors(step):
            if (scaled := RULES[factor.rule].constants.get(name)) is not None:
                stages.append((factor, constant))
                constant = scaled.value(constant, factor.kappa)
        return stages

    def constant(self, name: str, step: int) -> float:
        """One of the optimizer's constants at this step."""
        stages = self.stages(name, step)
        if not stages:
            return self.stated[name]
        factor, constant = stages[-1]
        return float(RULES[factor.rule].constants[name].value(constant, factor.kappa))

    def averaged_steps(self, step: int) -> float:
        """The power of the averaged weights' decay in this step: kappa, as far as rules say so."""
        kappas = (factor.kappa for factor in self.factors(step) if RULES[factor.rule].averages)
        return float(math.prod(kappas, start=Fraction(1)))

    def decay_factor(self, step: int) -> float:
        """What decoupled weight decay is multiplied by: kappa / the lr's factor, or 1."""
        return float(self.kappa(step)) / self.lr_factor(step) if self.scales_decay else 1.0

    def changed(self) -> list[str]:
        """The optimizer's constants that a rule of this run changes."""
        rules = {self.rule, *(branch.rule for branch in self.schedule.branches)}
        return [name for name in self.stated if any(name in RULES[rule].constants for rule in rules)]

    def set(self, named: Any, average: HasKappa | None, step: int) -> None:
        """Let the next update be made with the constants of this step.

        Args:
            named: the optimizer that the recipe names.
            average: of the weights, where the recipe wants one.
            step: 0 is the first.
        """
        for name in self.changed():
            setattr(named, name, self.constant(name, step))
        if self.scales_decay:
            named.decay_factor = self.decay_factor(step)
        if average is not None:
            average.kappa = self.averaged_steps(step)
