"""Batch norm of a group of workers whose images lie in several tensors: a worker's each, or on several processes.

Worker or part j has c values of a channel with mean m_j and biased variance v_j; over the group's parts

    N = sum_j c_j,   mean = (1/N) sum_j c_j m_j,   var = (1/N) sum_j c_j (v_j + (m_j - mean)^2)

and backward, with r = 1 / sqrt(var + eps), x^ = (x - mean) r, every sum over the group's N values:

    dL/dx = gamma r (dL/dy - (1/N) sum dL/dy - x^ (1/N) sum dL/dy x^)

Each part fills rows of its own, and the processes' rows are added: with zeros elsewhere, so nothing is rounded. The
rows are then combined in the workers' order, in float64. Where every part is one worker, the bits are thus the same
however the workers lie on processes.

Cost: two exchanges a layer, of 3 and of 2 numbers a channel and worker in 8 bytes each.

Source: Ying et al. 2018, section on distributed batch normalization; Chan, Golub and LeVeque 1979 (the combination).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.autograd.function import once_differentiable

if TYPE_CHECKING:
    from batchscale.worker.batch_norm import WorkerBatchNorm

Affine = tuple[torch.Tensor | None, torch.Tensor | None]
"""gamma and beta of a layer."""


Sum = Callable[[torch.Tensor, str], None]
"""How the processes that host a group add: (rows, what): rows <- their sum; the same order of calls on each."""


def alone(rows: torch.Tensor, what: str) -> None:
    """The ``Sum`` where one process hosts the whole group."""


@dataclass(frozen=True)
class SharedPass:
    """A pass of a group's workers whose statistics come from more than its tensor.

    Attributes:
        span: g, the workers of the group.
        place: of the pass's first worker in the group.
        add: over the processes that host the group.
        normalize: called by each layer with its input; gives the output.
    """

    span: int
    place: int
    add: Sum
    normalize: Callable[[WorkerBatchNorm, torch.Tensor], torch.Tensor]


def shared_part(span: int, place: int, add: Sum) -> SharedPass:
    """A pass of one tensor that holds some of a group's workers, the others on other processes."""
    shared: SharedPass

    def normalize(layer: WorkerBatchNorm, images: torch.Tensor) -> torch.Tensor:
        return normalized(layer, shared, [images], [(layer.weight, layer.bias)])[0]

    shared = SharedPass(span, place, add, normalize)
    return shared


def normalized(
    layer: WorkerBatchNorm, shared: SharedPass, parts: Sequence[torch.Tensor], affine: Sequence[Affine]
) -> tuple[torch.Tensor, ...]:
    """Every part normalised by the statistics of the whole group.

    Args:
        layer: leaves the group's statistics in its ``Statistics``.
        shared: the pass.
        parts: of this process, each (m, C, ...), in the order of the workers.
        affine: gamma and beta for each part.
    """
    weights, biases = zip(*affine, strict=True)
    outputs: tuple[torch.Tensor, ...] = _SharedBatchNorm.apply(layer, shared, len(parts), *parts, *weights, *biases)
    return outputs


class _SharedBatchNorm(torch.autograd.Function):
    """See ``normalized``: one node for all parts, so that backward goes on where all of them have come."""

    @staticmethod
    def forward(
        ctx: Any, layer: WorkerBatchNorm, shared: SharedPass, count: int, *tensors: torch.Tensor | None
    ) -> tuple[torch.Tensor, ...]:
        parts, weights, biases = _threes(tensors, count)
        mean, variance, total = _group_statistics(layer, shared, parts)
        outputs = [
            torch.native_batch_norm(part, weight, bias, mean, variance, False, 0.0, layer.eps)[0]
            for part, weight, bias in zip(parts, weights, biases, strict=True)
        ]
        ctx.save_for_backward(mean, variance, total, *parts, *weights)
        ctx.layer, ctx.shared = layer, shared
        return tuple(outputs)

    @staticmethod
    @once_differentiable  # a second derivative would pass the other processes over
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[Any, ...]:
        (mean, variance, values, *tensors), count, eps = ctx.saved_tensors, len(grad_outputs), ctx.layer.eps
        parts, weights = tensors[:count], tensors[count:]
        rows = _rows(ctx.shared, 2, mean)
        sums = []
        for place, (part, weight, grad) in enumerate(zip(parts, weights, grad_outputs, strict=True)):
            # In evaluation mode torch's kernel gives sum dL/dy x^ and sum dL/dy with the mean and variance handed in.
            _, dot, total = torch.ops.aten.native_batch_norm_backward(
                grad, part, weight, mean, variance, None, None, False, eps, [False, True, True]
            )
            sums.append((dot, total))
            rows[ctx.shared.place + place] = torch.stack([dot, total])
        ctx.shared.add(rows, f"gradients of {ctx.layer.described}")
        dot, total = _in_order(rows) / values
        scale = (variance.double() + eps).rsqrt()
        gradients = [
            _grad_input(part, weight, grad, mean, scale, dot, total) if needed else None
            for part, weight, grad, needed in zip(
                parts, weights, grad_outputs, ctx.needs_input_grad[3 : 3 + count], strict=True
            )
        ]
        dots, totals = zip(*sums, strict=True)
        grad_weights = [dot if weight is not None else None for dot, weight in zip(dots, weights, strict=True)]
        biased = ctx.needs_input_grad[3 + 2 * count :]
        grad_biases = [total if needed else None for total, needed in zip(totals, biased, strict=True)]
        return None, None, None, *gradients, *grad_weights, *grad_biases


def _threes(
    tensors: Sequence[torch.Tensor | None], count: int
) -> tuple[list[torch.Tensor], Sequence[torch.Tensor | None], Sequence[torch.Tensor | None]]:
    parts = [part for part in tensors[:count] if part is not None]
    return parts, tensors[count : 2 * count], tensors[2 * count :]


def _group_statistics(
    layer: WorkerBatchNorm, shared: SharedPass, parts: Sequence[torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(mean, biased variance) of every channel over the group, of the statistics' type; N, float64, each (C,).

    N stays on the device: to ask for it would be to wait there, at every layer.
    """
    # Averages to be moved by nothing: of their type the kernel gives its numbers, also of images in a lower one.
    unmoved = layer.zero_statistics()
    means_and_variances = [torch.batch_norm_update_stats(part, *unmoved, 0.0) for part in parts]
    rows = _rows(shared, 3, unmoved[0])
    for place, (part, statistics) in enumerate(zip(parts, means_and_variances, strict=True)):
        row = rows[shared.place + place]
        row[0] = part.numel() // layer.num_features
        row[1], row[2] = statistics
    shared.add(rows, f"statistics of {layer.described}")
    counts, means, variances = rows.unbind(1)
    total = _in_order(counts)
    mean = _in_order(counts * means) / total
    variance = _in_order(counts * (variances + (means - mean).square())) / total
    here = sum(part.numel() for part in parts) // layer.num_features
    layer.leave_statistics(mean, variance * (total / (total - 1)), here)
    kept = unmoved[0].dtype
    return mean.to(kept), variance.to(kept), total


def _rows(shared: SharedPass, numbers: int, like: torch.Tensor) -> torch.Tensor:
    """Zeros (g, numbers, C), float64."""
    return like.new_zeros((shared.span, numbers, len(like)), dtype=torch.float64)


def _in_order(rows: torch.Tensor) -> torch.Tensor:
    """The sum over the group's workers, first to last: torch's own order would hang on the number of channels."""
    total = rows[0].clone()
    for row in rows[1:]:
        total += row
    return total


def _grad_input(
    part: torch.Tensor,
    weight: torch.Tensor | None,
    grad: torch.Tensor,
    mean: torch.Tensor,
    scale: torch.Tensor,
    dot: torch.Tensor,
    total: torch.Tensor,
) -> torch.Tensor:
    """gamma r (dL/dy - total - x^ dot), of the part's type."""
    kept = mean.dtype
    shape = (1, -1, *[1] * (part.ndim - 2))
    slope = (scale * dot).to(kept).view(shape)  # of x - mean: the mean is taken off first, as it may be large
    gamma_r = (scale if weight is None else scale * weight.double()).to(kept).view(shape)
    result = (grad.to(kept) - total.to(kept).view(shape)).addcmul_(part.to(kept) - mean.view(shape), slope, value=-1)
    return result.mul_(gamma_r).to(part.dtype)
