"""Batch norm over exactly a worker's n images, or the g n images of a group of g workers; several in one pass.

For group j, channel c:   y = gamma (x - mu_jc) / sqrt(var_jc + eps) + beta

The statistics of every group of a pass are left in ``Statistics``; the engine sums them over all k workers
and moves the running averages once a step: r <- (1 - m) r + m (g/k) sum_j stat_j, with unbiased variances.

Source: Goyal et al. 2017, section 2.3 (statistics over n, never over kn) and section 5.1; Ying et al. 2018,
section on distributed batch normalization (g > 1).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from batchscale.errors import RecipeError
from batchscale.words import counted


class _GroupedBatchNorm(torch.autograd.Function):
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
        wanted = [bool(w) for w in ctx.needs_input_grad[:3]]
        grad_x = torch.empty_like(x) if wanted[0] else None
        grads: list[list[torch.Tensor]] = []
        for g, (part, grad_out) in enumerate(zip(x.chunk(groups), grad_outputs[0].chunk(groups), strict=True)):
            got = torch.ops.aten.native_batch_norm_backward(
                grad_out, part, weight, None, None, saved[0, g], saved[1, g], True, ctx.eps, wanted
            )
            if grad_x is not None:
                grad_x.chunk(groups)[g].copy_(got[0])
            grads.append(list(got[1:]))
        sums = [torch.stack([got[i] for got in grads]).sum(0) if wanted[i + 1] else None for i in (0, 1)]
        return grad_x, sums[0], sums[1], None, None, None


class Statistics:
    """Where the batch-norm layers of a model leave a pass's means and unbiased variances.

    Args:
        layers: channels of every layer.
        dtype, device: of the statistics.
        span: g, workers that are normalised together.

    Attributes:
        rows: (groups in a pass at most, 2 * sum of channels); mean then variance, layer by layer.
        workers: of the pass at hand.
    """

    def __init__(self, layers: list[int], dtype: torch.dtype, device: torch.device, span: int = 1) -> None:
        self.span = span
        self.chunks = [c for channels in layers for c in (channels, channels)]
        self.rows = torch.zeros((1, sum(self.chunks)), dtype=dtype, device=device)
        self.workers = span
        self._filled: set[int] = set()

    def begin_pass(self, workers: int) -> None:
        """Make room for a pass of so many workers.

        Raises:
            RecipeError: they are no whole groups.
        """
        if workers % self.span:
            raise RecipeError(
                f"batch_norm.span={self.span}: a pass of {counted(workers, 'worker')} holds no whole groups; give it a "
                f"multiple"
            )
        self.workers = workers
        self._filled.clear()
        if len(self.rows) < self._groups:
            self.rows = self.rows.new_zeros((self._groups, self.rows.shape[1]))

    @property
    def _groups(self) -> int:
        return self.workers // self.span

    def of_layer(self, offset: int, channels: int) -> tuple[torch.Tensor, torch.Tensor]:
        """(means, variances), each a view (groups, channels).

        Raises:
            RecipeError: the layer runs twice in one forward pass.
        """
        if offset in self._filled:
            raise RecipeError(
                "model: a batch-norm layer runs twice in one forward pass: it has no one mean over k workers; "
                "use a layer for each place"
            )
        self._filled.add(offset)
        rows = self.rows[: self._groups]
        return rows[:, offset : offset + channels], rows[:, offset + channels : offset + 2 * channels]

    def summed(self) -> torch.Tensor:
        """The sum over the pass's workers, each with its group's, (2 * sum of channels,)."""
        groups = self.rows[0] if self._groups == 1 else self.rows[: self._groups].sum(0)
        return groups if self.span == 1 else groups * self.span


_FOLLOWED = {
    f"{_BatchNorm.__module__}.{_BatchNorm.forward.__qualname__}": (),
    "timm.layers.norm_act.BatchNormAct2d.forward": ("drop", "act"),
}
"""Forward passes of batch-norm layers that ours can stand for -> the layer's own modules that follow, in order."""


def _written(layer: _BatchNorm) -> str:
    """Where the forward pass of a layer is written."""
    forward = type(layer).forward
    return f"{forward.__module__}.{forward.__qualname__}"


class WorkerBatchNorm(_BatchNorm):
    """torch's batch norm with statistics over each worker's (or group's) images in training; the same in evaluation.

    Its parameters, buffers and modules are those of the layer it stands in for, under the same names.
    """

    def __init__(self, layer: _BatchNorm, statistics: Statistics, offset: int) -> None:
        super().__init__(layer.num_features, layer.eps, layer.momentum, layer.affine, layer.track_running_stats)
        self._parameters = layer._parameters
        self._buffers = layer._buffers
        self._modules = layer._modules
        self._following = _FOLLOWED[_written(layer)]
        self.training = layer.training
        self._statistics = statistics
        self._offset = offset

    def _check_input_dim(self, input: torch.Tensor) -> None:
        """Any shape (n, C, ...) will do: the layer that this one stands for had the right one."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """input (groups * g n, C, ...) -> the same shape."""
        out = self._normalized(input) if self.training else super().forward(input)
        for name in self._following:
            out = getattr(self, name)(out)
        return out

    def _normalized(self, input: torch.Tensor) -> torch.Tensor:
        means, variances = self._statistics.of_layer(self._offset, self.num_features)
        if len(means) == 1:  # momentum 1 makes torch leave this pass's mean and unbiased variance behind
            return F.batch_norm(input, means[0], variances[0], self.weight, self.bias, True, 1.0, self.eps)
        out: torch.Tensor = _GroupedBatchNorm.apply(input, self.weight, self.bias, means, variances, self.eps)
        return out


class RunningAverages:
    """The running averages of all batch-norm layers, moved once a step from the mean over all k workers.

    r <- (1 - m) r + m stat;   without averages r <- stat: the last step's, over all its kn images

    Args:
        layers: the model's batch-norm layers, in order.
        averages: False to keep the last step's statistics alone.

    Source: Akiba et al. 2017, section on batch normalization without moving averages.
    """

    def __init__(self, layers: list[WorkerBatchNorm], averages: bool = True) -> None:
        tracked = [layer for layer in layers if layer.track_running_stats]
        self._counts = [t for layer in tracked if (t := layer.num_batches_tracked) is not None]
        self._targets: list[tuple[torch.Tensor, int, int, float]] = []
        for layer in tracked:
            for buffer, offset in ((layer.running_mean, 0), (layer.running_var, layer.num_features)):
                if buffer is not None and layer.momentum is not None:
                    momentum = layer.momentum if averages else 1.0
                    self._targets.append((buffer, layer._offset + offset, layer.num_features, momentum))

    @torch.no_grad()
    def update(self, mean_over_workers: torch.Tensor) -> None:
        """Move every running average by one step; mean_over_workers as in ``Statistics.summed`` / k."""
        for buffer, offset, channels, momentum in self._targets:
            buffer.mul_(1 - momentum).add_(mean_over_workers[offset : offset + channels], alpha=momentum)
        if self._counts:
            torch._foreach_add_(self._counts, 1)


def replace_batch_norm(
    model: nn.Module, dtype: torch.dtype, device: torch.device, span: int = 1, averages: bool = True
) -> tuple[nn.Module, Statistics, RunningAverages, Callable[[], None]]:
    """Put a worker's batch norm in the place of every batch norm of a model; parameters and names stay.

    Args:
        model: changed in place (a model that is itself a batch norm is returned anew).
        dtype, device: of the statistics.
        span: g, workers that are normalised together.
        averages: whether running averages are kept; else the last step's statistics are.

    Returns:
        The model, its statistics, its running averages, and a call that puts the model's own layers back.

    Raises:
        RecipeError: a kind of batch norm that k workers of n images give no meaning to.
    """
    found = [(name, m) for name, m in model.named_modules() if isinstance(m, _BatchNorm)]
    for name, layer in found:
        if isinstance(layer, nn.SyncBatchNorm) or (layer.track_running_stats and layer.momentum is None):
            kind = "SyncBatchNorm" if isinstance(layer, nn.SyncBatchNorm) else "momentum=None"
            raise RecipeError(
                f"model layer {name!r}: batch norm with {kind} has no meaning over k workers of n images; "
                f"use torch's BatchNorm with a momentum such as 0.1"
            )
        if _written(layer) not in _FOLLOWED:
            raise RecipeError(
                f"model layer {name!r}: {type(layer).__name__} is a batch norm with a forward pass of its own, which "
                f"statistics over n images would replace; use torch's BatchNorm, with what follows it in a layer beside"
            )
    statistics = Statistics([layer.num_features for _, layer in found], dtype, device, span)
    offset = 0
    replaced: list[WorkerBatchNorm] = []
    undo: list[tuple[nn.Module, str, nn.Module]] = []
    for name, layer in found:
        mine = WorkerBatchNorm(layer, statistics, offset)
        offset += 2 * layer.num_features
        replaced.append(mine)
        if not name:
            model = mine
            continue
        parent, _, child = name.rpartition(".")
        holder = model.get_submodule(parent)
        setattr(holder, child, mine)
        undo.append((holder, child, layer))

    def restore() -> None:
        for holder, child, layer in undo:
            setattr(holder, child, layer)

    return model, statistics, RunningAverages(replaced, averages), restore
