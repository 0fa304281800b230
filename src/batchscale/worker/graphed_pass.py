"""A pass of one shape as a CUDA graph: captured once, then launched whole instead of kernel by kernel.

A graph replays the very kernels that were captured, so its bits are those of the pass without it. What it gives is
overwritten by its next replay. Not yet run on a GPU.

Source: docs.pytorch.org, torch.cuda.make_graphed_callables.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import nn

from batchscale.worker.statistics import Statistics

Capture = Callable[[nn.Module, tuple[torch.Tensor, ...]], Callable[..., Any]]
"""(module, inputs of the shape) -> what replays its forward pass, and within autograd its backward pass."""


def captured(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> Callable[..., Any]:
    """The ``Capture`` of torch."""
    return cast(Callable[..., Any], torch.cuda.make_graphed_callables(module, inputs))


class GraphedPass(nn.Module):
    """A model whose training passes are replayed, those of the first shape that it sees; others run as ever.

    Args:
        model: as a pass calls it.
        statistics: of its batch norm; every pass is one group's, so their rows never move.
        capture: makes a graph.
    """

    def __init__(self, model: nn.Module, statistics: Statistics, capture: Capture = captured) -> None:
        super().__init__()
        self._pass, self._statistics, self._capture = _Pass(model, statistics), statistics, capture
        self._graph: Callable[..., Any] | None = None
        self._shape = torch.Size()
        self._values: dict[int, int] = {}

    def forward(self, inputs: torch.Tensor) -> Any:
        """Inputs of n examples -> the model's outputs."""
        if not (self.training and torch.is_grad_enabled()):
            return self._pass.model(inputs)
        if self._graph is None:
            # Captured before the feed begins: what another thread asks of the device would break the capture.
            self._graph, self._shape = self._capture(self._pass, (inputs,)), inputs.shape
            self._values = dict(self._statistics.values)
        if inputs.shape != self._shape:
            return self._pass.model(inputs)
        outputs = self._graph(inputs)
        # Kernels are replayed, but not what Python notes beside them.
        self._statistics.values.update(self._values)
        return outputs


class _Pass(nn.Module):
    """What is captured: run several times in a row, each time as the first of its pass."""

    def __init__(self, model: nn.Module, statistics: Statistics) -> None:
        super().__init__()
        self.model, self._statistics = model, statistics

    def forward(self, inputs: torch.Tensor) -> Any:
        self._statistics.values.clear()
        return self.model(inputs)
