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


@runtime_checkable
class FindsInf(Protocol):
    """An optimizer whose kernels take no update where the device says that the gradient is not finite.

    Attributes:
        found_inf: float32 (): 1 where none is to be taken, else 0; None to take all, and to ask nothing.
    """

    found_inf: torch.Tensor | None


OPTIMIZERS: Mapping[str, Callable[..., Optimizer]] = optimizer.OPTIMIZERS
"""Every optimizer that a recipe may name: (groups, **its options in the recipe) -> the optimizer."""
