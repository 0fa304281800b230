"""LAMB: Adam's direction with decay, its length fitted to each weight tensor's norm.

m <- b1 m + (1 - b1) g;   v <- b2 v + (1 - b2) g^2
r = (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps) + d w
w <- w - lr phi r;   phi = ||w|| / ||r||    where both norms are positive, else 1

Where the betas change, b^t is the product of those used.

Biases and scales (as ``decay_groups`` tells them) take phi = 1 and d = 0.
Keeps m, v and r: three times the weights' memory.
Passes over memory: 16.

Source: You et al. 2020, "Large Batch Optimization for Deep Learning: Training BERT in 76 minutes", algorithm 2.
"""

from __future__ import annotations

from typing import Any

import torch

from batchscale.update.debiasing import Debiasing
from batchscale.update.live import Groups, live


class LAMB:
    """Layer-wise adaptive moments, with bias correction.

    w <- w - lr (||w|| / ||r||) r,   r = Adam's direction + d w

    Args:
        groups: (weights to adapt, their decay d), then those taken as in Adam, such as biases and scales.
        beta1: b1 in [0, 1); it, beta2 and epsilon may be set anew between steps.
        beta2: b2 in [0, 1).
        epsilon: eps.

    Source: You et al. 2020, algorithm 2.
    """

    def __init__(self, groups: Groups, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-6) -> None:
        self._groups = list(groups)
        self.beta1, self.beta2, self.epsilon = beta1, beta2, epsilon
        self._moments = [
            [[torch.zeros_like(p) for p in parameters] for _ in range(3)] for parameters, _ in self._groups
        ]
        self._steps = [torch.zeros(len(p), device=p[0].device if p else None) for p, _ in self._groups]
        self._debiasings = [Debiasing(steps) for steps in self._steps]

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """One update of every parameter from its ``grad``, at this lr."""
        changed = [debiasing.begin(self.beta1, self.beta2) for debiasing in self._debiasings]
        for number, ((parameters, decay), moments, steps) in enumerate(
            zip(self._groups, self._moments, self._steps, strict=True)
        ):
            weights, gradients, first, second, direction, counts = live(parameters, *moments, steps.unbind())
            if not weights:
                continue
            torch._foreach_add_(counts, 1)
            torch._foreach_zero_(direction)
            tensors, debiasing = [direction, gradients, first, second], self._debiasings[number]
            if changed[number]:
                used = [i for i, p in enumerate(parameters) if p.grad is not None]
                for c in debiasing.corrections(used):
                    part = [[tensors_of_kind[i] for i in c.places] for tensors_of_kind in tensors]
                    self._direct(part, debiasing.far(len(c.places)), c.lr, self.epsilon * c.epsilon)
            else:
                self._direct(tensors, counts, 1.0, self.epsilon)
            if decay:
                torch._foreach_add_(direction, weights, alpha=decay)
            if number == 0:
                torch._foreach_mul_(direction, self._ratios(weights, direction))
            torch._foreach_add_(weights, direction, alpha=-lr)

    def _direct(
        self, tensors: list[list[torch.Tensor]], counts: list[torch.Tensor], factor: float, epsilon: float
    ) -> None:
        """Adam's direction, times a factor, into the first of [directions, gradients, m, v], all zeros."""
        direction, gradients, first, second = tensors
        torch._fused_adam_(  # at lr -1 from zero: the direction itself
            direction, gradients, first, second, [], counts, lr=-factor, beta1=self.beta1, beta2=self.beta2,
            weight_decay=0.0, eps=epsilon, amsgrad=False, maximize=False,
        )  # fmt: skip

    @staticmethod
    def _ratios(weights: list[torch.Tensor], direction: list[torch.Tensor]) -> Any:
        """phi of every tensor: numbers on a CPU, else tensors that stay on the device."""
        w, r = torch.stack(torch._foreach_norm(weights)), torch.stack(torch._foreach_norm(direction))
        ratios = torch.where((w > 0) & (r > 0), w / r, 1.0)
        return ratios.tolist() if ratios.device.type == "cpu" else ratios.unbind()

    def state(self) -> dict[str, torch.Tensor]:
        """All that a resume needs, by name: the live tensors, loaded by copying into them."""
        live_tensors: dict[str, torch.Tensor] = {}
        for group, (moments, steps) in enumerate(zip(self._moments, self._steps, strict=True)):
            live_tensors[f"steps.{group}"] = steps
            live_tensors |= {f"{name}.{group}": t for name, t in self._debiasings[group].state().items()}
            for name, tensors in zip(("first", "second"), moments, strict=False):  # the third is rewritten each step
                live_tensors |= {f"{name}.{group}.{i}": t for i, t in enumerate(tensors)}
        return live_tensors
