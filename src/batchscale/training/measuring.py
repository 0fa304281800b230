"""The seam to the measures of a state, which lie above: what measures a run under way is handed in to its loop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from batchscale.recipe.measuring import MeasureEntry

CURVATURE = "curvature"
"""The name of the numbers that ``Measuring.curvature`` gives."""


@dataclass(frozen=True)
class CurvatureAsked:
    """How the top eigenvalue of the Hessian is measured.

    Attributes:
        examples: of the stated set, at most all training examples.
        tolerance: relative change at which the power iteration ends.
        most_products: of the Hessian with a vector.
    """

    examples: int
    tolerance: float
    most_products: int


class Measuring(Protocol):
    """Measures a run between two of its steps, without a change to what it trains; all processes call it together."""

    def __call__(self, entry: MeasureEntry, step: int) -> dict[str, Any]:
        """What a measure says of the run's state, the same on all processes.

        Args:
            entry: the measure with its options.
            step: steps done.

        Returns:
            For a line: "answer" (a sentence), "numbers" (those to be drawn), "result" (the measure's document); or
            "refused", a sentence, where the measure has no place in this run.
        """

    def curvature(self, question: CurvatureAsked, step: int) -> tuple[float, ...]:
        """(lambda, its residual, products) of the Hessian's top eigenvalue, the same on all processes.

        Raises:
            UsageError: the loss has no Hessian.
        """


def measure_is_due(entry: MeasureEntry, steps: int, ends: bool) -> bool:
    """Whether a measure is due after so many steps; ``ends``: they were the run's last."""
    return ends or (entry.every is not None and steps % entry.every == 0)
