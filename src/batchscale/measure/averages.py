"""Batch norm's averages recomputed over the stated set, at the weights of the moment: a function of these alone.

The passes have the run's n examples, whatever the chunks are: what a layer sees hangs on how the layers below it
normalise, so on n. Source: Wu and Johnson 2021, section 3 (PreciseBN), as ``worker/recompute.py``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from batchscale.comm import World
from batchscale.data.examples import Examples
from batchscale.errors import UsageError
from batchscale.worker.batch_norm import WorkerBatchNorm, replace_batch_norm
from batchscale.worker.recompute import Recomputation, fill_buffers


class RecomputedAverages:
    """The averages of a model at its weights, measured anew where these have changed.

    Args:
        model: a plain module.
        weights: of it, by whose changes the averages are measured anew.
        examples: the stated set.
        normalizer: as in training.
        world: the processes that share the passes.
        per_worker: n.

    Raises:
        UsageError: the set holds no n examples, or the model is in the midst of a run.
    """

    def __init__(
        self,
        model: nn.Module,
        weights: Sequence[nn.Parameter],
        examples: Examples,
        normalizer: Any,
        world: World,
        per_worker: int,
    ) -> None:
        if len(examples) < per_worker:
            raise UsageError(
                f"batch norm recomputed: {len(examples)} examples hold no pass of n = {per_worker}; use more examples"
            )
        if any(isinstance(module, WorkerBatchNorm) for module in model.modules()):
            raise UsageError(
                "batch norm recomputed: the model is in the midst of a run; measure at its running averages, or a "
                "checkpoint of it"
            )
        self._model, self._weights, self._examples = model, weights, examples
        self._normalizer, self._world, self._per_worker = normalizer, world, per_worker
        self._measured: list[torch.Tensor] = []
        self._versions: tuple[int, ...] = ()

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Let the model hold the averages at its weights of now; its own come back bit by bit."""
        versions = tuple(weight._version for weight in self._weights)
        if versions != self._versions:
            self._measured, self._versions = self._measure(), versions
        buffers = self._buffers()
        own = [buffer.clone() for buffer in buffers]
        try:
            fill_buffers(buffers, self._measured)
            yield
        finally:
            fill_buffers(buffers, own)

    def _buffers(self) -> list[torch.Tensor]:
        layers = [module for module in self._model.modules() if isinstance(module, _BatchNorm)]
        return [b for layer in layers for b in (layer.running_mean, layer.running_var) if b is not None]

    def _measure(self) -> list[torch.Tensor]:
        weight = self._weights[0]
        modes = [(module, module.training) for module in self._model.modules()]
        self._model.train()
        model, statistics, averages, restore = replace_batch_norm(self._model, weight.dtype, weight.device)
        try:
            recomputation = Recomputation(
                model, averages.layers, statistics, self._examples, self._normalizer, self._world
            )
            return recomputation.measure(self._per_worker)
        finally:
            restore()
            for module, mode in modes:
                module.training = mode
