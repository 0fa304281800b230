"""The optimizers that a recipe may name, and the seam that they share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol, runtime_checkable

import torch

from batchscale.recipe import optimizer


@runtime_checkable
class Optimizer(Protocol):
    """What the step needs of an optimizer."""

    def step(self, lr: float) -> None:
        """One update of every parameter from its ``grad``, at this lr; no ``grad``, no update."""
        ...

    def state(self) -> dict[str, torch.Tensor]:
        """All that a resume needs, by name: the live tensors, loaded by copying into them."""
        ...


OPTIMIZERS: Mapping[str, Callable[..., Optimizer]] = optimizer.OPTIMIZERS
"""Every optimizer that a recipe may name: (groups, **its options in the recipe) -> the optimizer."""
