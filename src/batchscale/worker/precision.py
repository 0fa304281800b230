"""Low precision: forward and backward passes in bfloat16 or float16, everything that is kept in float32.

weights, gradients, their sum, statistics of batch norm, loss, update: float32
float16 besides: g = (1 / S) grad (S l), S dynamic, so that small gradients do not vanish in the backward pass

The loss l of a pass is divided by all kn images, the loss that others scale by the n of their pass. So S is stated as
s = S n / kn: then s means the same as theirs, for every k.

Source: Micikevicius et al. 2018, "Mixed Precision Training", sections 3.1 (master weights) and 3.2 (loss scaling).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from batchscale.structure import mapped
from batchscale.worker.scale import FIRST_LOSS_SCALE, MOST_GROWTH_STEPS, whole_workers

_MINIMUM = 1.0  # of S: below it the float32 gradient itself would be made smaller


class LowPrecision(nn.Module):
    """A model whose passes run in a low type (torch's autocast chooses per operation), with float32 outputs.

    Args:
        model: with float32 weights.
        dtype: torch.bfloat16 or torch.float16.
        device: where it runs.
    """

    def __init__(self, model: nn.Module, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__()
        self._model, self._dtype, self._device = model, dtype, device

    def forward(self, *inputs: Any) -> Any:
        """Inputs of n examples -> outputs of the same structure as the model's, floating ones in float32."""
        with torch.autocast(self._device.type, self._dtype):
            outputs = self._model(*inputs)
        return mapped(lambda tensor: tensor.float() if tensor.is_floating_point() else tensor, outputs)


class NoLossScale:
    """The loss as it is: a step whose gradient is not finite ends the run."""

    value = 1.0

    def factor(self, workers: int) -> float:
        """S = 1, for every k."""
        return 1.0

    def unscale(self, workers: int) -> None:
        """Nothing to take back."""

    def update(self, finite: bool, workers: int) -> bool:
        """Whether the run can go on."""
        return finite

    def state(self) -> dict[str, torch.Tensor]:
        """Nothing is carried from step to step."""
        return {}


class LossScale:
    """A factor S on the loss, halved when the aggregated gradient overflows, doubled after many finite steps.

    S = s 2^floor(log2 k), on the loss that is divided by kn: s = S n / kn, up to twice that where k is no power of two
    s <- s / 2 after a step that is not finite (which is skipped);   s <- 2 s after so many finite ones in a row

    S is a power of two, so taking it back rounds nothing; it hangs on the aggregated gradient alone, so every process
    holds the same. Below the minimum no S would help: the run has diverged.

    Args:
        parameters: whose aggregated ``grad`` is divided by S.
        start: first s, a power of two.
        growth_steps: finite steps in a row before s doubles.
        minimum: the smallest S that is tried.

    Source: Micikevicius et al. 2018, section 3.2; start and growth as torch.amp.GradScaler's.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        start: float = FIRST_LOSS_SCALE,
        growth_steps: int = MOST_GROWTH_STEPS,
        minimum: float = _MINIMUM,
    ) -> None:
        self._parameters = list(parameters)
        self._growth_steps, self._minimum = growth_steps, minimum
        self._value = torch.tensor(start, dtype=torch.float64)
        self._finite_steps = torch.tensor(0)

    @property
    def value(self) -> float:
        """s."""
        return float(self._value)

    def factor(self, workers: int) -> float:
        """S in a step of k workers."""
        return self.value * whole_workers(workers)

    @torch.no_grad()
    def unscale(self, workers: int) -> None:
        """Divide every aggregated gradient of a step of k workers by S."""
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        torch._foreach_mul_(gradients, 1 / self.factor(workers))

    def update(self, finite: bool, workers: int) -> bool:
        """Choose the next step's s after one of k workers; False where S fell below the minimum."""
        self._finite_steps.add_(1).mul_(finite)
        if not finite:
            self._value.div_(2)
        elif self._finite_steps >= self._growth_steps:
            self._value.mul_(2)
            self._finite_steps.zero_()
        return self.factor(workers) >= self._minimum

    def state(self) -> dict[str, torch.Tensor]:
        """All that a resume needs, by name: the live tensors, loaded by copying into them."""
        return {"value": self._value, "finite_steps": self._finite_steps}
