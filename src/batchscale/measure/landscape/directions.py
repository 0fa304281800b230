"""Random directions of which each filter is as long as the weights' own filter.

    d_i <- d_i / |d_i| |w_i|,   i every filter: what one output (channel, unit, row of a table) is made by

d is drawn from N(0, 1), keyed by (seed, number of the direction, number of the weight): the same draws for every run of
a net. Biases and the weights of normalising layers stay: d = 0 there.

Source: Li, Xu, Taylor, Studer, Goldstein 2018, "Visualizing the loss landscape of neural nets", section 4.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvTransposeNd

from batchscale.randomness import key, normal

_DIRECTION = 211  # stream: random directions of landscapes
_NORMALISING = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def random_direction(model: nn.Module, weights: Sequence[nn.Parameter], seed: int, number: int) -> torch.Tensor:
    """One filter-normalised direction.

    Args:
        model: that holds the weights.
        weights: those that are varied, P numbers.
        seed, number: by which it is drawn.

    Returns:
        float64 (P,), on the weights' device.
    """
    owners = {id(weight): module for module in model.modules() for weight in module.parameters(recurse=False)}
    pieces = []
    for place, weight in enumerate(weights):
        draws = normal(key(seed, _DIRECTION, number, place), np.arange(weight.numel()))
        drawn = torch.from_numpy(draws).to(weight.device).view(weight.shape)
        pieces.append(_as_long(drawn, weight.detach().double(), owners[id(weight)]).reshape(-1))
    return torch.cat(pieces)


def _as_long(drawn: torch.Tensor, weight: torch.Tensor, owner: nn.Module) -> torch.Tensor:
    """The draws of one weight, each filter scaled to that of the weight; zeros where it has no filters."""
    if weight.ndim < 2 or isinstance(owner, _NORMALISING):
        return torch.zeros_like(drawn)
    groups = owner.groups if isinstance(owner, _ConvTransposeNd) else 0
    # A weight (in, out / groups, ...) of a transposed convolution: an output channel meets the inputs of its group.
    shape = (
        (groups, -1, weight.shape[1], weight[0, 0].numel()) if groups else (1, 1, weight.shape[0], weight[0].numel())
    )
    lengths, wanted = (tensor.reshape(shape).square().sum((1, 3), keepdim=True).sqrt() for tensor in (drawn, weight))
    return (drawn.reshape(shape) * (wanted / lengths.clamp_min(torch.finfo(torch.float64).tiny))).view(drawn.shape)
