"""What a plan is asked: what is trained, on which devices, to which goal, within which bounds."""

from __future__ import annotations

from dataclasses import dataclass

from batchscale.cost.planning.goal import EpochGoal
from batchscale.cost.planning.pace import Pace
from batchscale.cost.planning.risks import Risks


@dataclass(frozen=True)
class Trained:
    """What a plan must know of a recipe.

    Args:
        recipe: its name.
        workers: k.
        per_worker: n, examples.
        epoch_examples: N, training examples of an epoch.
        examples: what they are called, such as "images".
        others: sizes a worker may have, too.
        parts: what an example consists of, and how many of them, such as ("tokens", 64); ("", 1) where none count.
    """

    recipe: str
    workers: int
    per_worker: int
    epoch_examples: int
    examples: str = "images"
    parts: tuple[str, int] = ("", 1)
    others: tuple[int, ...] = ()

    @property
    def minibatch(self) -> int:
        """kn, of the recipe."""
        return self.workers * self.per_worker

    @property
    def sizes(self) -> tuple[int, ...]:
        """All n, the recipe's first."""
        return tuple(dict.fromkeys((self.per_worker, *sorted(self.others, reverse=True))))


@dataclass(frozen=True)
class Bounds:
    """What a plan must keep to; None: anything goes.

    Args:
        deadline_hours: to the goal.
        budget: in the price's currency.
    """

    deadline_hours: float | None = None
    budget: float | None = None


@dataclass(frozen=True)
class PlanQuestion:
    """All of it.

    Args:
        trained: by the recipe.
        cluster: its name.
        devices: counts, rising.
        pace: of a step.
        goal: epochs to it.
        price: of a device and an hour; None: not known.
        bounds: deadline and budget.
        risks: of failures; None: nothing is known.
    """

    trained: Trained
    cluster: str
    devices: tuple[int, ...]
    pace: Pace
    goal: EpochGoal
    price: float | None = None
    bounds: Bounds = Bounds()
    risks: Risks | None = None
