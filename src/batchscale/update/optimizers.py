"""The optimizers that a recipe may name, and the seam that they share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch

from batchscale.update.adamw import AdamW
from batchscale.update.lamb import LAMB
from batchscale.update.lars import LARS
from batchscale.update.rmsprop_warmup import RMSpropWarmup
from batchscale.update.sgd import SGD, SGDLrInBuffer


class Optimizer(Protocol):
    """What the step needs of an optimizer."""

    def step(self, lr: float) -> None:
        """One update of every parameter from its ``grad``, at this lr; no ``grad``, no update."""
        ...

    def state(self) -> dict[str, torch.Tensor]:
        """All that a resume needs, by name: the live tensors, loaded by copying into them."""
        ...


OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "sgd": SGD,
    "sgd_lr_in_buffer": SGDLrInBuffer,
    "lars": LARS,
    "lamb": LAMB,
    "adamw": AdamW,
    "rmsprop_warmup": RMSpropWarmup,
}
"""Every optimizer that a recipe may name: (groups, **its options in the recipe) -> the optimizer."""
