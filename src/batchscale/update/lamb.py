"""LAMB: Adam's direction with decay, its length fitted to each weight tensor's norm.

m <- b1 m + (1 - b1) g;   v <- b2 v + (1 - b2) g^2
r = (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps) + d w
w <- w - lr phi r;   phi = ||w|| / ||r||    where both norms are positive, else 1

Biases and scales (as ``decay_groups`` tells them) take phi = 1 and d = 0.
Keeps m, v and r: three times the weights' memory.
Passes over memory: 16.

Source: You et al. 2020, "Large Batch Optimization for Deep Learning: Training BERT in 76 minutes", algorithm 2.
"""

from __future__ import annotations

import torch

from batchscale.update.live import Groups, live


class LAMB:
    """Layer-wise adaptive moments, with bias correction.

    w <- w - lr (||w|| / ||r||) r,   r = Adam's direction + d w

    Args:
        groups: (weights to adapt, their decay d), then those taken as in Adam, such as biases and scales.
        beta1: b1 in [0, 1).
        beta2: b2 in [0, 1).
        epsilon: eps.

    Source: You et al. 2020, algorithm 2.
    """

    def __init__(self, groups: Groups, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-6) -> None:
        self._groups = list(groups)
        self._beta1, self._beta2, self._epsilon = beta1, beta2, epsilon
        self._moments = [
            [[torch.zeros_like(p) for p in parameters] for _ in range(3)] for parameters, _ in self._groups
        ]
        self._steps = [torch.zeros(len(p), device=p[0].device if p else None) for p, _ in self._groups]

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """One update of every parameter from its ``grad``, at this lr."""
        for number, ((parameters, decay), moments, steps) in enumerate(
            zip(self._groups, self._moments, self._steps, strict=True)
        ):
            weights, gradients, first, second, direction, counts = live(parameters, *moments, steps.unbind())
            if not weights:
                continue
            torch._foreach_add_(counts, 1)
            torch._foreach_zero_(direction)
            torch._fused_adam_(  # at lr -1 from zero: Adam's direction itself
                direction, gradients, first, second, [], counts, lr=-1.0, beta1=self._beta1, beta2=self._beta2,
                weight_decay=0.0, eps=self._epsilon, amsgrad=False, maximize=False,
            )  # fmt: skip
            if decay:
                torch._foreach_add_(direction, weights, alpha=decay)
            if number == 0:
                torch._foreach_mul_(direction, self._ratios(weights, direction))
            torch._foreach_add_(weights, direction, alpha=-lr)

    @staticmethod
    def _ratios(weights: list[torch.Tensor], direction: list[torch.Tensor]) -> list[float]:
        """phi of every tensor."""
        w, r = torch.stack(torch._foreach_norm(weights)), torch.stack(torch._foreach_norm(direction))
        ratios: list[float] = torch.where((w > 0) & (r > 0), w / r, 1.0).tolist()
        return ratios

    def state(self) -> dict[str, torch.Tensor]:
        """All that a resume needs, by name: the live tensors, loaded by copying into them."""
        live_tensors: dict[str, torch.Tensor] = {}
        for group, (moments, steps) in enumerate(zip(self._moments, self._steps, strict=True)):
            live_tensors[f"steps.{group}"] = steps
            for name, tensors in zip(("first", "second"), moments, strict=False):  # the third is rewritten each step
                live_tensors |= {f"{name}.{group}.{i}": t for i, t in enumerate(tensors)}
        return live_tensors
