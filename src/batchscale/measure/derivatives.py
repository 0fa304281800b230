"""Derivatives of one chunk's summed loss with respect to the trained weights, as flat vectors.

    g = grad L,   H v = grad (g' v)   by a second backward pass (``forward.py``: by forward mode),
    G v = J' (H_z (J v)),   z the outputs, J their Jacobian, H_z the loss's Hessian with respect to z

J v is the derivative of J' u with respect to u: two backward passes, and no rule for a forward mode is needed.

Source: Pearlmutter 1994, "Fast exact multiplication by the Hessian"; Schraudolph 2002 (Gauss-Newton).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from batchscale.structure import mapped, tensors
from batchscale.task import Task
from batchscale.task.base import Model

_NO_DERIVATIVE = "torch::autograd::Error"  # the node in the place of a backward pass that has none

Weights = Sequence[nn.Parameter]


def flat(parts: Sequence[torch.Tensor | None], weights: Weights) -> torch.Tensor:
    """One tensor a weight, or None for zeros -> float64 (P,)."""
    filled = (torch.zeros_like(w) if part is None else part for part, w in zip(parts, weights, strict=True))
    return torch.cat([part.detach().reshape(-1).double() for part in filled])


def shaped(vector: torch.Tensor, weights: Weights) -> list[torch.Tensor]:
    """(P,) -> a tensor of each weight's shape, type and device."""
    pieces = torch.split(vector, [weight.numel() for weight in weights])
    return [piece.view(w.shape).to(w.device, w.dtype) for piece, w in zip(pieces, weights, strict=True)]


def gradient(loss: torch.Tensor, weights: Weights) -> torch.Tensor:
    """g of a summed loss, float64 (P,)."""
    if not loss.requires_grad:
        return flat([None] * len(weights), weights)
    return flat(torch.autograd.grad(loss, weights, allow_unused=True), weights)


def hessian_products(loss: torch.Tensor, weights: Weights, vectors: torch.Tensor) -> torch.Tensor:
    """H v of every row v of vectors (r, P), float64 (r, P); the passes up to the gradient are shared by the rows."""
    if not loss.requires_grad:
        return torch.zeros_like(vectors, dtype=torch.float64)
    first = torch.autograd.grad(loss, weights, create_graph=True, allow_unused=True)
    check_second(first)
    return torch.stack([_pulled(first, weights, shaped(vector, weights)) for vector in vectors])


def gauss_newton_products(
    task: Task, model: Model, batch: tuple[Any, Any], weights: Weights, vectors: torch.Tensor
) -> torch.Tensor:
    """G v of every row v of vectors (r, P), float64 (r, P).

    Args:
        task: whose loss it is.
        model: its outputs are z.
        batch: inputs and targets of a chunk.
        weights: P numbers.
        vectors: the rows.
    """
    inputs, targets = batch
    outputs = task.outputs(model, inputs, targets)
    branches = [tensor for tensor in tensors(outputs) if tensor.requires_grad]
    if not branches:
        return torch.zeros_like(vectors, dtype=torch.float64)
    cut = mapped(lambda tensor: tensor.detach().requires_grad_() if tensor.requires_grad else tensor, outputs)
    leaves = [tensor for tensor in tensors(cut) if tensor.requires_grad]
    loss, _ = task.train_pass(lambda *_: cut, inputs, targets)
    slopes = torch.autograd.grad(loss, leaves, create_graph=True, allow_unused=True)
    cotangents = [torch.zeros_like(tensor, requires_grad=True) for tensor in branches]
    pulled = torch.autograd.grad(branches, weights, cotangents, create_graph=True, allow_unused=True)
    check_second(pulled)
    rows = []
    for vector in vectors:
        moved = _gradients(pulled, cotangents, shaped(vector, weights))
        bent = _gradients(slopes, leaves, moved)
        back = torch.autograd.grad(branches, weights, bent, retain_graph=True, allow_unused=True)
        rows.append(flat(back, weights))
    return torch.stack(rows)


def check_second(gradients: Sequence[torch.Tensor | None]) -> None:
    """Raise where gradients hang on a backward pass that has no derivative: torch would leave its share out in silence.

    Raises:
        RuntimeError: in the words that torch has for it.
    """
    nodes = [g.grad_fn for g in gradients if g is not None and g.grad_fn is not None]
    seen = set(nodes)
    while nodes:
        node = nodes.pop()
        if node.name() == _NO_DERIVATIVE:
            raise RuntimeError("trying to differentiate twice a function that was marked with @once_differentiable")
        beyond = {further for further, _ in node.next_functions if further is not None} - seen
        seen |= beyond
        nodes += beyond


def _pulled(first: Sequence[torch.Tensor | None], weights: Weights, vector: Sequence[torch.Tensor]) -> torch.Tensor:
    return flat(_gradients(first, weights, vector), weights)


def _gradients(
    functions: Sequence[torch.Tensor | None], arguments: Sequence[torch.Tensor], weighting: Sequence[torch.Tensor]
) -> list[torch.Tensor]:
    """The gradient of sum_i functions_i' weighting_i; zeros where nothing hangs on an argument."""
    pairs = [(f, w) for f, w in zip(functions, weighting, strict=True) if f is not None and f.requires_grad]
    if not pairs:
        return [torch.zeros_like(argument) for argument in arguments]
    values, factors = zip(*pairs, strict=True)
    gradients = torch.autograd.grad(values, arguments, factors, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(a) if g is None else g for g, a in zip(gradients, arguments, strict=True)]
