"""Batch norm of several groups of images in one pass, all groups at once: as many kernels for many groups as for one.

The groups' channels lie side by side, so that torch's batch norm over (n, G C, ...) is that of every group by itself:

    (G n, C, ...) -> (n, G C, ...) -> batch norm -> (G n, C, ...)

It is tensor code alone, which torch's compiler takes (and fuses the two copies into its neighbours).

Cost: two copies of the images forward, and two backward.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F


def stacked_batch_norm(
    x: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    means: torch.Tensor,
    variances: torch.Tensor,
    eps: float,
) -> torch.Tensor:
    """Each group of consecutive images normalised by its own statistics, in the memory format that they have.

    Args:
        x: (G n, C, ...).
        weight, bias: gamma and beta, (C,).
        means, variances: (G, C), filled with the groups' means and unbiased variances, in their type.
        eps: beside the variance.
    """
    groups = len(means)
    mean, variance = torch.zeros((2, means.numel()), dtype=means.dtype, device=x.device).unbind()
    gamma, beta = (None if parameter is None else parameter.repeat(groups) for parameter in (weight, bias))
    last = x.ndim > 2 and x.stride(1) == 1  # channels last
    # Momentum 1 leaves the statistics of this pass alone.
    out = F.batch_norm(_side_by_side(x, groups, last), mean, variance, gamma, beta, True, 1.0, eps)
    means.copy_(mean.view(groups, -1))
    variances.copy_(variance.view(groups, -1))
    return _one_after_the_other(out, groups, last)


def _side_by_side(x: torch.Tensor, groups: int, last: bool) -> torch.Tensor:
    """(G n, C, ...) -> (n, G C, ...), channels last or not as x."""
    if last:
        x = x.movedim(1, -1)
    in_groups = x.view(groups, -1, *x.shape[1:])
    if last:
        return in_groups.movedim(0, -2).flatten(-2).movedim(-1, 1)
    return in_groups.movedim(0, 1).flatten(1, 2)


def _one_after_the_other(out: torch.Tensor, groups: int, last: bool) -> torch.Tensor:
    """(n, G C, ...) -> (G n, C, ...)."""
    if last:
        out = out.movedim(1, -1)
        return out.view(*out.shape[:-1], groups, -1).movedim(-2, 0).flatten(0, 1).movedim(-1, 1)
    return out.view(len(out), groups, -1, *out.shape[2:]).movedim(1, 0).flatten(0, 1)
