"""Which tensors of an optimizer an update touches: those whose parameter has a gradient."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import nn

Groups = Iterable[tuple[list[nn.Parameter], float]]
"""(parameters, weight decay of theirs), as ``decay_groups`` gives them."""


def live(parameters: Sequence[nn.Parameter], *states: Sequence[torch.Tensor]) -> list[list[torch.Tensor]]:
    """The weights that have a gradient, their gradients, and their part of every state.

    Args:
        parameters: of a group.
        states: lists as long as parameters.

    Returns:
        [weights, gradients, *states], lists of one length; unused parameters (``grad`` None) are in none.
    """
    used = [i for i, p in enumerate(parameters) if p.grad is not None]
    gradients = [p.grad for p in parameters if p.grad is not None]
    return [[parameters[i] for i in used], gradients, *([state[i] for i in used] for state in states)]
