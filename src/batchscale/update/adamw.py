"""AdamW: Adam with the weight decay taken out of the gradient, by torch's fused kernel.

m <- b1 m + (1 - b1) g;   v <- b2 v + (1 - b2) g^2
w <- (1 - lr d) w - lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)

Source: Loshchilov, Hutter 2019, "Decoupled Weight Decay Regularization", algorithm 2.
"""

from __future__ import annotations

from typing import Any

import torch

from batchscale.update.live import Groups


class AdamW:
    """Adam with decoupled weight decay.

    w <- (1 - lr d) w - lr Adam's direction

    Args:
        groups: (parameters, decay d of theirs).
        beta1: b1 in [0, 1).
        beta2: b2 in [0, 1).
        epsilon: eps.

    Source: Loshchilov and Hutter 2019, algorithm 2.
    """

    def __init__(self, groups: Groups, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8) -> None:
        torch_groups: list[dict[str, Any]] = [{"params": p, "weight_decay": d} for p, d in groups if p]
        self._parameters = [p for group in torch_groups for p in group["params"]]
        self._adamw = torch.optim.AdamW(torch_groups, lr=0.0, betas=(beta1, beta2), eps=epsilon, fused=True)
        self._steps = torch.zeros(len(self._parameters), device=self._parameters[0].device)
        for parameter, count in zip(self._parameters, self._steps.unbind(), strict=True):
            first, second = torch.zeros_like(parameter), torch.zeros_like(parameter)
            self._adamw.state[parameter] = {"step": count, "exp_avg": first, "exp_avg_sq": second}

    def step(self, lr: float) -> None:
        """One update of every parameter from its ``grad``, at this lr."""
        for group in self._adamw.param_groups:
            group["lr"] = lr
        self._adamw.step()

    def state(self) -> dict[str, torch.Tensor]:
        """All that a resume needs, by name: the live tensors, loaded by copying into them."""
        states = [self._adamw.state[p] for p in self._parameters]
        return {
            "steps": self._steps,
            **{f"first.{i}": s["exp_avg"] for i, s in enumerate(states)},
            **{f"second.{i}": s["exp_avg_sq"] for i, s in enumerate(states)},
        }
