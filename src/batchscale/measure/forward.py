"""Products with the Hessian by forward mode over one backward pass, where these are cheaper than a second one.

    H v = d/de grad L(w + e v),   w a dual number of tangent v

The second derivative of a convolution's backward pass is dear on a CPU (a product costs 4.5 gradients of a U-Net, and
5.4 of a Tiramisu; in forward mode 3.7 and 3.8), that of attention is cheap (3.5, in forward mode 4.8). So forward mode
is for nets with convolutions. It goes its own ways: layers without it, and layers in whose passes gradients are cut,
which it does not see. Both ways are compared on two examples before one is taken.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import nn
from torch.autograd import forward_ad
from torch.func import functional_call
from torch.nn.modules.conv import _ConvNd

from batchscale.measure.derivatives import Weights, flat, hessian_products, shaped
from batchscale.task import Task

_ALIKE = 0.01  # of a product, in float32 and of two examples: what is more than rounding is of the order of it


def forward_products(
    task: Task, model: nn.Module, batch: tuple[Any, Any], weights: Weights, vectors: torch.Tensor
) -> torch.Tensor:
    """H v of every row v of vectors (r, P), float64 (r, P), of a chunk's summed loss.

    Args:
        task: whose loss it is.
        model: that holds the weights.
        batch: inputs and targets of the chunk.
        weights: P numbers.
        vectors: the rows.

    Raises:
        RuntimeError: a layer has no forward mode.
    """
    names = {id(weight): name for name, weight in model.named_parameters()}
    rows = []
    for vector in vectors:
        with forward_ad.dual_level():
            duals = {
                names[id(weight)]: _dual(weight.detach().requires_grad_(), tangent)
                for weight, tangent in zip(weights, shaped(vector, weights), strict=True)
            }

            def moved(*inputs: Any, duals: dict[str, torch.Tensor] = duals, **named: Any) -> Any:
                return functional_call(model, duals, inputs, named)

            loss, _ = task.train_pass(moved, *batch)
            slopes: list[torch.Tensor | None] = [None] * len(weights)
            if loss.requires_grad:
                slopes = list(torch.autograd.grad(loss, list(duals.values()), allow_unused=True))
            rows.append(flat([slope if slope is None else _tangent(slope) for slope in slopes], weights))
    return torch.stack(rows)


def _dual(value: torch.Tensor, tangent: torch.Tensor) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # at the first one torch warns of its own use of torch.jit
        dual: torch.Tensor = forward_ad.make_dual(value, tangent)  # type: ignore[no-untyped-call]
    return dual


def _tangent(slope: torch.Tensor) -> torch.Tensor | None:
    tangent: torch.Tensor | None = forward_ad.unpack_dual(slope).tangent  # type: ignore[no-untyped-call]
    return tangent


def has_convolutions(model: nn.Module) -> bool:
    """Whether forward mode may be the cheaper way for a net."""
    return any(isinstance(module, _ConvNd) for module in model.modules())


def forward_serves(
    loss: torch.Tensor, task: Task, model: nn.Module, batch: tuple[Any, Any], weights: Weights, vector: torch.Tensor
) -> bool:
    """Whether forward mode gives what a second backward pass does.

    Args:
        loss: of the batch, summed.
        task, model, weights: as of ``forward_products``.
        batch: of an example or two, the same on every process: all are to go one way.
        vector: (P,).
    """
    try:
        ahead = forward_products(task, model, batch, weights, vector[None])
        behind = hessian_products(loss, weights, vector[None])
    except RuntimeError:  # of either way; that of the second one is told where it is taken
        return False
    return bool((ahead - behind).norm() <= _ALIKE * behind.norm())
