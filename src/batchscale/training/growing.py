"""Growth that is decided during the run: what a measure tells, and the part that takes decisions by it.

A way to decide is one more ``Decider``, handed in by ``DECIDERS`` of ``build/assembly.py``; the loop knows none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from batchscale.minibatch import Minibatch
from batchscale.training.measuring import CurvatureAsked
from batchscale.update.growing import Decision, GrowingPlan


@dataclass(frozen=True)
class Judgement:
    """What a measure says of a minibatch.

    Attributes:
        passes: it asks for a larger one.
        numbers: that say why, for the record.
    """

    passes: bool
    numbers: Mapping[str, float | int | None] = field(default_factory=dict)


class Decider(Protocol):
    """A measure by which the minibatch grows; from numbers that are the same on all processes.

    Attributes:
        asks: of the run's state, what is measured and noted before every judgement; None: the steps' numbers suffice.
    """

    asks: CurvatureAsked | None

    def note(self, step: int, minibatch: Minibatch, numbers: Mapping[str, Sequence[float]]) -> None:
        """What all processes know after a step: the numbers of every rider that tells, by its name."""

    def judge(self, minibatch: Minibatch) -> Judgement:
        """Whether a larger minibatch than this one is asked for; what is noted from here on is for the next time."""

    def state(self) -> dict[str, Any]:
        """What was noted since the last judgement, as plain JSON: a resume goes on there."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from such a state; {} is that of a beginning."""


class Growing:
    """Decisions of a run, each when it is due.

    Args:
        plan: of the run, which every decision extends.
        decider: the measure.
    """

    def __init__(self, plan: GrowingPlan, decider: Decider) -> None:
        self._plan, self._decider = plan, decider

    def note(self, step: int, numbers: Mapping[str, Sequence[float]]) -> None:
        """See ``Decider.note``."""
        self._decider.note(step, self._plan.minibatch_at(step), numbers)

    @property
    def asks(self) -> CurvatureAsked | None:
        """See ``Decider``."""
        return self._decider.asks

    def due(self, steps: int) -> bool:
        """Whether a decision is due after so many steps."""
        return self._plan.is_due(steps)

    def decide(self) -> Decision:
        """Take it."""
        verdict = self._decider.judge(self._plan.judged)
        return self._plan.decide(verdict.passes, verdict.numbers)

    def records(self) -> list[dict[str, Any]]:
        """Every decision so far, for result.json."""
        rows = ((decision, decision.as_json()) for decision in self._plan.decisions)
        return [
            {
                "step": row.pop("step"),
                "epoch": round(float(self._plan.epoch_at(decision.step)), 6),
                **row.pop("numbers"),
                **row,
            }
            for decision, row in rows
        ]

    def state(self) -> dict[str, Any]:
        """For a checkpoint: the decisions so far, and what was noted since the last one."""
        return {
            "decisions": [decision.as_json() for decision in self._plan.decisions],
            "decider": self._decider.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Of a checkpoint; {} of one that holds no decision."""
        self._plan.restore([Decision.from_json(decision) for decision in state.get("decisions", ())])
        self._decider.restore(state.get("decider", {}))
