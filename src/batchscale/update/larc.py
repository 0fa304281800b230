"""LARC: LARS that never raises the lr of a tensor above the lr of the schedule, so that it needs no warmup.

lambda = eta ||w|| / (||g|| + d ||w|| + eps)    where both norms are positive, else lr
u <- m u + min(lambda / lr, 1) (g + d w);   w <- w - lr u

Biases and scales (as ``decay_groups`` tells them) are taken as in plain SGD, with d = 0; at lr 0 no weight moves.
Passes over memory: 2 for the norms, 5 for the update.

Source: Kurth et al. 2018, "Exascale Deep Learning for Climate Analytics", section V.B (LARC, the clipping form of You,
Gitman, Ginsburg 2017); the momentum outside of the lr as in NVIDIA's apex.
"""

from __future__ import annotations

import torch

from batchscale.update.lars import local_rates
from batchscale.update.live import Groups, live


class LARC:
    """Layer-wise adaptive rate control, the clipping form of LARS.

    u <- m u + min(lambda / lr, 1) (g + d w); w <- w - lr u

    Args:
        groups: (weights to adapt, their decay d), then those taken as in plain SGD, such as biases and scales.
        momentum: m in [0, 1); the attribute of this name may be set anew between steps, both above 0.
        trust_coefficient: eta.
        epsilon: eps.

    Source: Kurth et al. 2018; You et al. 2017, algorithm 1.
    """

    def __init__(
        self, groups: Groups, momentum: float = 0.9, trust_coefficient: float = 0.001, epsilon: float = 1e-8
    ) -> None:
        self._groups = list(groups)
        self.momentum, self._trust, self._epsilon = momentum, trust_coefficient, epsilon
        self._buffers = [[torch.zeros_like(p) for p in parameters] for parameters, _ in self._groups]

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """One update of every parameter from its ``grad``, at this lr."""
        for number, ((parameters, decay), buffers) in enumerate(zip(self._groups, self._buffers, strict=True)):
            weights, gradients, moving = live(parameters, buffers)
            if not weights:
                continue
            if number:
                self._update(weights, gradients, moving, decay, lr, 1.0)
                continue
            rates = local_rates(weights, gradients, decay, self._trust, self._epsilon, without=lr)
            for w, g, u, rate in zip(weights, gradients, moving, rates, strict=True):
                share = min(rate / lr, 1.0) if lr else 1.0
                self._update([w], [g], [u], decay, lr, share)

    def _update(
        self,
        w: list[torch.Tensor],
        g: list[torch.Tensor],
        u: list[torch.Tensor],
        decay: float,
        lr: float,
        share: float,
    ) -> None:
        """u <- m u + share (g + d w); w <- w - lr u: torch's SGD kernel, whose dampening is 1 - share.

        The kernel takes no buffers at m = 0, and no dampening then: its lr has the share in it.
        """
        plain = self.momentum == 0
        torch._fused_sgd_(
            w, g, [] if plain else u, weight_decay=decay, momentum=self.momentum, lr=lr * share if plain else lr,
            dampening=0.0 if plain else 1.0 - share, nesterov=False, maximize=False, is_first_step=False,
        )  # fmt: skip

    def state(self) -> dict[str, torch.Tensor]:
        """All that a resume needs, by name: the live tensors, loaded by copying into them."""
        return {f"momentum.{i}": b for i, b in enumerate(b for buffers in self._buffers for b in buffers)}
