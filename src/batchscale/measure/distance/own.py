"""``batchscale.measure.distance``: how far one's own weights have moved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import nn

from batchscale.errors import UsageError
from batchscale.measure.distance.answer import Travelled, distance, travelled

Weights = nn.Module | Mapping[str, torch.Tensor]
"""A module, or its weights by name, such as ``{name: w.clone() for name, w in module.named_parameters()}``."""


def of_own(initial: Weights, later: Weights | Mapping[int, Weights]) -> Travelled:
    """|w - w0|, with its fits where there are three steps and more.

    Args:
        initial: w0; of a module the trained weights, else those that are named.
        later: w, which may have further ones; or by the steps done (from 1 on) those of several steps.

    Raises:
        UsageError: a weight is missing, or of another shape; or no step is above 0.
    """
    start = _named(initial)
    distances = {step: distance(start, _checked(start, _named(w), step)) for step, w in _by_steps(later).items()}
    if not any(step > 0 for step in distances):
        raise UsageError("later: holds no step above 0; give {step: weights}, or weights")
    return travelled("", distances, None, start)


def _by_steps(later: Weights | Mapping[int, Weights]) -> Mapping[int, Weights]:
    if isinstance(later, nn.Module) or any(isinstance(name, str) for name in later):
        return {1: cast(Weights, later)}
    return cast(Mapping[int, Weights], later)


def _named(weights: Weights) -> dict[str, torch.Tensor]:
    if isinstance(weights, nn.Module):
        return {name: weight.detach() for name, weight in weights.named_parameters() if weight.requires_grad}
    return {name: weight.detach() for name, weight in weights.items()}


def _checked(start: dict[str, torch.Tensor], weights: dict[str, torch.Tensor], step: int) -> dict[str, torch.Tensor]:
    for name, weight in start.items():
        if name not in weights or weights[name].shape != weight.shape:
            raise UsageError(
                f"later, step {step}: has no weight {name} of shape {tuple(weight.shape)}; give weights of one net"
            )
    return weights
