"""Batch norm of several groups of images in one pass, each group by torch's own kernel."""

from __future__ import annotations

from typing import Any

import torch


class GroupedBatchNorm(torch.autograd.Function):
    """Batch norm over groups of consecutive images, by torch's own kernel on each group, without a concatenation."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor | None,
        bias: torch.Tensor | None,
        means: torch.Tensor,
        variances: torch.Tensor,
        eps: float,
    ) -> torch.Tensor:
        groups, channels = means.shape
        out = torch.empty_like(x)
        saved = torch.empty((2, groups, channels), dtype=means.dtype, device=x.device)
        for g, (part, part_out) in enumerate(zip(x.chunk(groups), out.chunk(groups), strict=True)):
            # Straight into its place in the output: a concatenation would be one more pass over memory. Momentum 1
            # leaves this pass's own mean and unbiased variance in means[g] and variances[g].
            torch.native_batch_norm(
                part,
                weight,
                bias,
                means[g],
                variances[g],
                True,
                1.0,
                eps,
                out=(part_out, saved[0, g], saved[1, g]),
            )
        ctx.save_for_backward(x, weight, saved)
        ctx.eps = eps
        return out

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, saved = ctx.saved_tensors
        groups = saved.shape[1]
        needed = [bool(w) for w in ctx.needs_input_grad[:3]]
        grad_x = torch.empty_like(x) if needed[0] else None
        grads: list[list[torch.Tensor]] = []
        for g, (part, grad_out) in enumerate(zip(x.chunk(groups), grad_outputs[0].chunk(groups), strict=True)):
            gradients = torch.ops.aten.native_batch_norm_backward(
                grad_out, part, weight, None, None, saved[0, g], saved[1, g], True, ctx.eps, needed
            )
            # This copy costs 1.2 % of a step. The formula that avoids it subtracts nearly equal numbers where a
            # channel's mean is large (docs/log.md).
            if grad_x is not None:
                grad_x.chunk(groups)[g].copy_(gradients[0])
            grads.append(list(gradients[1:]))
        sums = [torch.stack([gradients[i] for gradients in grads]).sum(0) if needed[i + 1] else None for i in (0, 1)]
        return grad_x, sums[0], sums[1], None, None, None
