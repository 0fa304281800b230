"""What runs are judged by: the task's score, of which images, in words, and which way is better.

A run that diverged is worth infinity, whichever way is better: worse than any other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from batchscale.records.score import Score
from batchscale.study.evidence.elbow import Point
from batchscale.study.evidence.quantities import evaluated_on
from batchscale.study.runner.cell import Outcome
from batchscale.words import counted

Judgeable = TypeVar("Judgeable")

USUAL_POINTS, USUAL_SHARE = 0.5, 0.01
"""A difference that counts as none where none is stated: points of percent; of another score a share of the reference.

A share means the same in every unit: of a cross-entropy in nats as in bits.
"""


@dataclass(frozen=True)
class Judged:
    """A score without a value.

    Args:
        score: its name, unit and direction.
        split: what it is of: test, or holdout; both where the runs differ.
    """

    score: Score
    split: str = "test"

    @property
    def words(self) -> str:
        """As in "mean test error"."""
        return f"{self.split} {self.score.name}"

    @property
    def label(self) -> str:
        """Of an axis or a column, with the unit."""
        return f"{self.words} {self.unit_words}".rstrip()

    @property
    def unit_words(self) -> str:
        """The unit in brackets; nothing for a plain number."""
        return f"({self.score.unit})" if self.score.unit else ""

    @property
    def key(self) -> str:
        """Of documents: error_percent."""
        return self.score.key

    @property
    def falls(self) -> bool:
        """Whether lower values are better."""
        return self.score.better == "lower"

    def entries(self, value: float) -> dict[str, float | None]:
        """A mean under its name in documents; none where it is infinite."""
        mean = self.score.model_copy(update={"value": None if math.isinf(value) else value})
        return mean.entries(self.split == "holdout")

    def text(self, value: float) -> str:
        """A value with its unit: "1.39 %"."""
        return f"{value:.2f} {self.score.unit}".rstrip()

    def tolerance(self, stated: float | None, reference: float) -> float:
        """A difference that is allowed, in the score's unit.

        Args:
            stated: by the user; None: 0.5 points of percent, 1 % of the reference of another score.
            reference: the value compared with.
        """
        if stated is not None:
            return stated
        if self.score.unit == "%":
            return USUAL_POINTS
        return USUAL_SHARE * abs(reference) if math.isfinite(reference) else 0.0

    def tolerance_words(self, stated: float | None) -> str:
        """A difference that is allowed: "0.5 points" of percent, "1 %" of another score."""
        if self.score.unit == "%":
            return counted(USUAL_POINTS if stated is None else stated, "point", "g")
        return f"{USUAL_SHARE:.0%}".replace("%", " %") if stated is None else f"{stated:g} {self.score.unit}".rstrip()

    def best(self, members: Iterable[Judgeable], value: Callable[[Judgeable], float]) -> Judgeable:
        """The member whose value is best, the first of several."""
        return min(members, key=lambda member: self.loss(value(member)))

    def loss(self, value: float) -> float:
        """A value as what is better where it is lower."""
        return value if self.falls or math.isinf(value) else -value

    def worse_by(self, value: float, reference: float) -> float:
        """How much worse than the reference a value is; negative where it is better."""
        return self.loss(value) - self.loss(reference)

    def allowed(self, reference: float, tolerance: float) -> float:
        """The worst value within the tolerance of the reference."""
        return reference + tolerance if self.falls else reference - tolerance

    def losses(self, point: Point) -> Point:
        """A point of values as one of losses."""
        return Point(point.minibatch, tuple(map(self.loss, point.errors)))


def judged_of(outcomes: Sequence[Outcome]) -> Judged:
    """What these runs are judged by; the error in percent where none has a result."""
    scores = (outcome.result.judged_by for outcome in outcomes if outcome.result is not None)
    score = next(scores, Score(name="error", value=None, unit="%", better="lower"))
    return Judged(score.model_copy(update={"value": None}), evaluated_on(outcomes))
