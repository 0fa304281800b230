"""Momentum that changes at given epochs: a function of the step, so that a resume needs no state for it.

m(t) = m_i of the last change i whose epoch e_i is at or before the start of step t;   m_0 before any

The buffer goes on as it is: u <- m(t) u + g, whatever m was before.

Source: Smith et al. 2018, "Don't Decay the Learning Rate, Increase the Batch Size" (a larger momentum in the place of a
smaller noise scale, lr / (1 - m) (N / kn - 1)).
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

from batchscale.minibatch import StepPlan


class HasMomentum(Protocol):
    """An optimizer whose momentum may be set anew before a step."""

    momentum: float


@dataclass(frozen=True)
class PlannedMomentum:
    """The momentum of every step of a plan, whatever its minibatches.

    Args:
        plan: of the steps.
        first: m_0.
        changes: (e_i, m_i), epochs rising.
    """

    plan: StepPlan
    first: float
    changes: tuple[tuple[Fraction, float], ...] = ()

    def __call__(self, step: int) -> float:
        """m of this step (0 is the first)."""
        epoch = self.plan.epoch_at(step)
        return next((momentum for begin, momentum in reversed(self.changes) if begin <= epoch), self.first)

    def set(self, optimizer: HasMomentum, step: int) -> None:
        """Let the optimizer's next step be taken with the momentum of this step."""
        optimizer.momentum = self(step)
