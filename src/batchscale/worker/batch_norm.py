"""Batch norm over exactly a worker's n images, or the g n images of a group of g workers; several in one pass.

For group j, channel c:   y = gamma (x - mu_jc) / sqrt(var_jc + eps) + beta

The statistics of every group of a pass are left in ``Statistics``; the step sums them over all k workers
and moves the running averages once a step, with unbiased variances (``RunningAverages``).

Source: Goyal et al. 2017, section 2.3 (statistics over n, never over kn) and section 5.1; Ying et al. 2018,
section on distributed batch normalization (g > 1).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from batchscale.errors import RecipeError
from batchscale.worker.grouped_batch_norm import GroupedBatchNorm
from batchscale.worker.stacked_batch_norm import stacked_batch_norm
from batchscale.worker.statistics import Statistics

_FOLLOWED = {
    f"{_BatchNorm.__module__}.{_BatchNorm.forward.__qualname__}": (),
    "timm.layers.norm_act.BatchNormAct2d.forward": ("drop", "act"),
}
"""Forward passes of batch-norm layers that ours can stand for -> the layer's own modules that follow, in order."""


def _loops_over_groups(input: torch.Tensor) -> bool:
    """Whether groups are normalised one after the other: on a CPU that is faster, and its bits are to stay.

    A device would wait for the launches, and torch's compiler takes no kernel that writes where it is told to.
    """
    return input.device.type == "cpu" and not torch.compiler.is_compiling()


def _written(layer: _BatchNorm) -> str:
    """Where the forward pass of a layer is written."""
    forward = type(layer).forward
    return f"{forward.__module__}.{forward.__qualname__}"


class WorkerBatchNorm(_BatchNorm):
    """torch's batch norm with statistics over each worker's (or group's) images in training; the same in evaluation.

    Its parameters, buffers and modules are those of the layer it stands in for, under the same names.

    Attributes:
        number: of the layer in the model.
        offset: where its means begin in a row of the statistics; its variances follow.
    """

    def __init__(self, layer: _BatchNorm, statistics: Statistics, number: int, offset: int) -> None:
        super().__init__(layer.num_features, layer.eps, layer.momentum, layer.affine, layer.track_running_stats)
        # The very dictionaries: what is loaded, moved or averaged under the layer's names is so here, too.
        self._parameters = layer._parameters
        self._buffers = layer._buffers
        self._modules = layer._modules
        self._following = _FOLLOWED[_written(layer)]
        self.training = layer.training
        self._statistics = statistics
        self.number, self.offset = number, offset

    def _check_input_dim(self, input: torch.Tensor) -> None:
        """Any shape (n, C, ...) will do: the layer that this one stands for had the right one."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """input (groups * g n, C, ...) -> the same shape."""
        out = self._normalized(input) if self.training else super().forward(input)
        for name in self._following:
            out = getattr(self, name)(out)
        return out

    def _normalized(self, input: torch.Tensor) -> torch.Tensor:
        if self._statistics.shared is not None:
            return self._statistics.shared.normalize(self, input)
        values = input.numel() // self.num_features
        means, variances = self._statistics.of_layer(self.offset, self.num_features, values)
        if len(means) == 1:  # momentum 1 makes torch leave this pass's mean and unbiased variance behind
            return F.batch_norm(input, means[0], variances[0], self.weight, self.bias, True, 1.0, self.eps)
        if _loops_over_groups(input):
            looped: torch.Tensor = GroupedBatchNorm.apply(input, self.weight, self.bias, means, variances, self.eps)
            return looped
        return stacked_batch_norm(input, self.weight, self.bias, means, variances, self.eps)

    @property
    def described(self) -> str:
        """In words, for errors."""
        return f"batch norm {self.number + 1}, {self.num_features} channels"

    def zero_statistics(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Two tensors (C,) of zeros, of the statistics' type."""
        zeros = self._statistics.rows.new_zeros((2, self.num_features))
        return zeros[0], zeros[1]

    def leave_statistics(self, mean: torch.Tensor, variance: torch.Tensor, values: int) -> None:
        """Leave a group's mean and unbiased variance, each (C,), where a pass's statistics are left.

        Args:
            mean, variance: of the group.
            values: of a channel in this pass.
        """
        means, variances = self._statistics.of_layer(self.offset, self.num_features, values)
        means[0].copy_(mean)
        variances[0].copy_(variance)


class RunningAverages:
    """The running averages of all batch-norm layers, moved once a step from the mean over all k workers.

    c <- (1 - m) c + m;   r <- r + (m / c) (stat - r);   stat = sum_j stat_j / workers whose pass ran the layer

    c is the weight that the statistics have so far: it begins at 0, so the first step's take the place of the initial
    0 and 1, which are no statistics of anything. It begins at 1 in a layer that brings statistics along (pretrained).
    Without averages r <- stat: the last step's; its variance is the mean of the groups' variances, so without the
    variance of their means, and less than that over all kn images.

    Args:
        layers: the model's batch-norm layers, in order.
        averages: False to keep the last step's statistics alone.

    Attributes:
        layers: those that have running averages.

    Source: Ioffe and Szegedy 2015, algorithm 2 (averages); Kingma and Ba 2015, section 3 (the division by c); Akiba et
    al. 2017, section on batch normalization without moving averages.
    """

    def __init__(self, layers: list[WorkerBatchNorm], averages: bool = True) -> None:
        self.layers = [layer for layer in layers if layer.track_running_stats and layer.momentum is not None]
        momenta = [layer.momentum or 0.0 if averages else 1.0 for layer in self.layers]
        self._momenta = torch.tensor(momenta, dtype=torch.float64)
        self._weights = torch.tensor([_weight_so_far(layer) for layer in self.layers], dtype=torch.float64)

    @torch.no_grad()
    def update(self, mean_over_workers: torch.Tensor, absent: Sequence[float] = ()) -> None:
        """Move every running average by one step.

        Args:
            mean_over_workers: ``Statistics.summed`` of all passes / k.
            absent: of every layer the share of the k workers whose pass did not run it; () where all ran all. A layer
                that no worker ran stays as it is.
        """
        ran = [1 - absent[layer.number] if absent else 1.0 for layer in self.layers]
        moved = self._weights.lerp(torch.ones_like(self._weights), self._momenta)
        # A layer that no worker ran has seen no statistics: its weight must not grow.
        self._weights.copy_(torch.where(torch.tensor(ran) > 0, moved, self._weights))
        for layer, share, present in zip(self.layers, (self._momenta / self._weights).tolist(), ran, strict=True):
            if not present:
                continue
            for buffer, offset in statistics_of(layer):
                statistic = mean_over_workers[offset : offset + layer.num_features]
                # Absent workers are zeros in the mean over k: by / present it is that over those whose pass ran it.
                buffer.mul_(1 - share).add_(statistic, alpha=share / present)
            if layer.num_batches_tracked is not None:
                layer.num_batches_tracked.add_(1)

    def state(self) -> dict[str, torch.Tensor]:
        """All that a resume needs beside the model's buffers, by name: live tensors, loaded by copying into them."""
        return {"weights": self._weights}


def statistics_of(layer: WorkerBatchNorm) -> list[tuple[torch.Tensor, int]]:
    """The running mean and variance of a layer that tracks them, each with its offset in a row of the statistics."""
    buffers = ((layer.running_mean, layer.offset), (layer.running_var, layer.offset + layer.num_features))
    return [(buffer, offset) for buffer, offset in buffers if buffer is not None]


def _weight_so_far(layer: WorkerBatchNorm) -> float:
    """1 where a layer holds statistics, 0 where it holds the initial zeros and ones (or no numbers at all)."""
    mean, variance = layer.running_mean, layer.running_var
    if mean is None or variance is None or mean.is_meta:
        return 0.0
    return float(bool((mean != 0).any() or (variance != 1).any()))


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
    layers = [(name, m) for name, m in model.named_modules() if isinstance(m, _BatchNorm)]
    for name, layer in layers:
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
    # Only now, when none is refused, is the model changed.
    statistics = Statistics([layer.num_features for _, layer in layers], dtype, device, span)
    offset = 0
    replaced: list[WorkerBatchNorm] = []
    undo: list[tuple[nn.Module, str, nn.Module]] = []
    for number, (name, layer) in enumerate(layers):
        replacement = WorkerBatchNorm(layer, statistics, number, offset)
        offset += 2 * layer.num_features
        replaced.append(replacement)
        if not name:
            model = replacement
            continue
        parent, _, child = name.rpartition(".")
        holder = model.get_submodule(parent)
        setattr(holder, child, replacement)
        undo.append((holder, child, layer))

    def restore() -> None:
        for holder, child, layer in undo:
            setattr(holder, child, layer)

    return model, statistics, RunningAverages(replaced, averages), restore
