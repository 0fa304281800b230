"""Gradient clipping: the whole gradient shortened to a given norm before the update.

g <- g min(1, c / (||g|| + 1e-6)),    ||g|| over all parameters together

Source: Pascanu, Mikolov, Bengio 2013, "On the difficulty of training recurrent neural networks", algorithm 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from batchscale.update.optimizers import Optimizer


class ClippedGradient:
    """An optimizer that sees no gradient longer than a given norm.

    g <- g min(1, c / (||g|| + 1e-6))

    Args:
        optimizer: that takes the step.
        parameters: whose gradients make up g; their ``grad`` is changed in place.
        clip_norm: c.

    Source: Pascanu et al. 2013, algorithm 1.
    """

    def __init__(self, optimizer: Optimizer, parameters: Sequence[nn.Parameter], clip_norm: float) -> None:
        self._optimizer, self._parameters, self._clip_norm = optimizer, list(parameters), clip_norm

    def step(self, lr: float) -> None:
        """One update of every parameter from its ``grad``, at this lr."""
        torch.nn.utils.clip_grad_norm_(self._parameters, self._clip_norm, foreach=True)
        self._optimizer.step(lr=lr)

    def state(self) -> dict[str, torch.Tensor]:
        """The optimizer's own: clipping carries nothing from step to step."""
        return self._optimizer.state()
