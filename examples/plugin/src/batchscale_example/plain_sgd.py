"""SGD without momentum: w <- w - f lr (g + decay w), with a constant factor f as its one option."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import PositiveFloat

from batchscale.plugins import OptimizerEntry

if TYPE_CHECKING:
    import torch


class PlainSGDEntry(OptimizerEntry):
    """Its entry in a recipe."""

    name: Literal["example_sgd"] = "example_sgd"
    factor: PositiveFloat = 1.0


class PlainSGD:
    """The optimizer.

    Args:
        groups: (parameters, their weight decay) each.
        factor: f.
    """

    def __init__(self, groups: Sequence[tuple[list[torch.nn.Parameter], float]], factor: float) -> None:
        self._groups, self._factor = groups, factor

    def step(self, lr: float) -> None:
        """One update of every parameter that has a gradient."""
        for parameters, decay in self._groups:
            for p in parameters:
                if p.grad is not None:
                    p.data.add_(p.grad.add(p.data, alpha=decay), alpha=-self._factor * lr)

    def state(self) -> dict[str, torch.Tensor]:
        """Nothing to keep for a resume."""
        return {}
