"""Growth by curvature: the minibatch doubles as the top eigenvalue of the Hessian falls."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from batchscale.minibatch import Minibatch
from batchscale.recipe.minibatch import GrowthByCurvature, GrowthEntry
from batchscale.training.growing import Judgement
from batchscale.training.measuring import CURVATURE, CurvatureAsked


class CurvatureDecider:
    """Asks for a larger minibatch where lambda, measured at every decision, has fallen by a factor alpha.

    |lambda| <= |lambda_0| / alpha,   or after kappa decisions without growth

    lambda is the eigenvalue of largest magnitude, of either sign: where it is negative, what lies above zero is smaller
    still. lambda_0 is the first one measured; where the minibatch grows because lambda fell, it is lambda there.

    Args:
        falls_by: alpha.
        duration: kappa; None: it grows by lambda alone.
        asks: how lambda is measured.

    Source: Yao et al. 2018, "Large batch size training of neural networks with adversarial training and second-order
    information", with the constants of its authors' code (HessianFlow, optimizer/absa.py): measured after every epoch,
    alpha = 2, twice the minibatch at twice the lr, kappa = 10. Its adversarial half is not here.
    """

    def __init__(self, falls_by: float, duration: int | None, asks: CurvatureAsked) -> None:
        self._falls_by, self._duration = falls_by, duration
        self.asks: CurvatureAsked | None = asks
        self._measured: list[float] = []  # lambda, its residual, products
        self._reference: float | None = None
        self._last: float | None = None  # lambda of the last judgement,
        self._judged: int | None = None  # its minibatch, and whether lambda had fallen there
        self._fell, self._waited = False, 0

    def note(self, step: int, minibatch: Minibatch, numbers: Mapping[str, Sequence[float]]) -> None:
        """Take lambda where it was measured: just before a decision."""
        if CURVATURE in numbers:
            self._measured = list(numbers[CURVATURE])

    def judge(self, minibatch: Minibatch) -> Judgement:
        """Whether lambda has fallen by the factor, or the minibatch has stayed for long enough."""
        value, residual, products = self._measured
        if self._judged is not None and minibatch.images > self._judged:  # the decision before this one let it grow
            self._waited = 0
            self._reference = self._last if self._fell else self._reference
        if self._reference is None and math.isfinite(value):
            self._reference = value
        reference = self._reference
        self._waited += 1
        self._fell = bool(reference) and abs(value) <= abs(reference or 0.0) / self._falls_by
        self._judged, self._last = minibatch.images, value
        stayed = self._duration is not None and self._waited >= self._duration
        numbers = {
            "eigenvalue": value, "reference_eigenvalue": reference, "residual": residual,
            "products": int(products), "decisions_without_growth": self._waited,
        }  # fmt: skip
        return Judgement(self._fell or stayed, numbers)

    def state(self) -> dict[str, Any]:
        """What the next judgement goes by."""
        return {
            "reference": self._reference, "last": self._last, "judged": self._judged, "fell": self._fell,
            "waited": self._waited,
        }  # fmt: skip

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from it."""
        self._reference, self._last, self._judged = state.get("reference"), state.get("last"), state.get("judged")
        self._fell, self._waited = state.get("fell", False), state.get("waited", 0)


def curvature_decider(entry: GrowthEntry) -> CurvatureDecider:
    """Of minibatch.growth.kind=curvature."""
    assert isinstance(entry, GrowthByCurvature)
    question = CurvatureAsked(entry.curvature_examples, entry.tolerance, entry.most_products)
    return CurvatureDecider(entry.falls_by, entry.duration, question)
