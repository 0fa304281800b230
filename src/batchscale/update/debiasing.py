"""Adam's bias correction where the betas may change between steps: by 1 - the product of the betas used.

m_t / (1 - b1_1 ... b1_t);   v_t / (1 - b2_1 ... b2_t)

What is left of the zeros that m and v began at is that product, whatever the betas were. While they have never changed
it is a power, which torch's fused kernels form themselves from the number of steps: nothing is counted for it. From the
first change on the kernels are given a number of steps at which a power is 0, and the corrections in their constants:

    lr m / c1 / (sqrt(v / c2) + eps) = (lr sqrt c2 / c1) m / (sqrt v + eps sqrt c2)

Source: Kingma, Ba 2015, "Adam", section 3.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

_POWERS = -1.0  # in the place of products: the betas have never changed
_FAR = 1e30  # steps at which any beta's power is 0


@dataclass(frozen=True)
class Correction:
    """What tensors share whose moments have the same products behind them.

    Attributes:
        places: of the tensors, among those of the update.
        lr: factor on the lr, sqrt c2 / c1.
        epsilon: factor on epsilon, sqrt c2.
    """

    places: list[int]
    lr: float
    epsilon: float


class Debiasing:
    """The products of the betas used, a column for each tensor.

    Args:
        steps: (tensors,) float32, the updates of each; counted by the optimizer.
    """

    def __init__(self, steps: torch.Tensor) -> None:
        self._steps = steps
        self._betas = torch.full((2,), _POWERS, dtype=torch.float64)  # of the last step; none before any
        self._products = torch.full((2, len(steps)), _POWERS, dtype=torch.float64)

    def begin(self, beta1: float, beta2: float) -> bool:
        """Take up the betas of the next step, before it is counted; whether they have ever changed."""
        last = self._betas.tolist()
        if last != [beta1, beta2]:
            if last[0] >= 0 and not self._changed():
                self._products.copy_(self._betas[:, None] ** self._steps.cpu().double())
            self._betas[0], self._betas[1] = beta1, beta2
        return self._changed()

    def _changed(self) -> bool:
        return bool((self._products >= 0).any())

    def corrections(self, tensors: Sequence[int]) -> Iterator[Correction]:
        """Those of a step of these tensors, after a change."""
        self._products[:, tensors] *= self._betas[:, None]
        alike: dict[tuple[float, float], list[int]] = {}
        for place, (first, second) in enumerate(self._products[:, tensors].T.tolist()):
            alike.setdefault((first, second), []).append(place)
        for (first, second), places in alike.items():
            root = math.sqrt(1 - second)
            yield Correction(places, root / (1 - first), root)

    def far(self, tensors: int) -> list[torch.Tensor]:
        """Steps for a kernel that is to correct nothing."""
        return [torch.full((), _FAR, device=self._steps.device)] * tensors

    def state(self) -> dict[str, torch.Tensor]:
        """All that a resume needs, by name: the live tensors, loaded by copying into them."""
        return {"betas": self._betas, "products": self._products}
