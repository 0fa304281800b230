"""LARC: LARS that never raises the lr of a tensor above the lr of the schedule, so that it needs no warmup.

lambda = eta ||w|| / (||g|| + d ||w|| + eps)    where both norms are positive, else lr
u <- m u + min(lambda / lr, 1) (g + d w);   w <- w - lr u

Biases and scales are taken as in plain SGD, with d = 0; at lr 0 no weight moves. The step is that of
``update/layerwise.py``.

Source: Kurth et al. 2018, "Exascale Deep Learning for Climate Analytics", section V.B (LARC, the clipping form of You,
Gitman, Ginsburg 2017); the momentum outside of the lr as in NVIDIA's apex.
"""

from __future__ import annotations

import torch

from batchscale.update.layerwise import LayerwiseRates


class LARC(LayerwiseRates):
    """Layer-wise adaptive rate control, the clipping form of LARS.

    u <- m u + min(lambda / lr, 1) (g + d w); w <- w - lr u

    Args:
        groups: (weights to adapt, their decay d), then those taken as in plain SGD, such as biases and scales.
        momentum: m in [0, 1); the attribute of this name may be set anew between steps, both above 0.
        trust_coefficient: eta.
        epsilon: eps.

    Source: Kurth et al. 2018; You et al. 2017, algorithm 1.
    """

    def _plain_rate(self, lr: float) -> float:
        return lr

    def _factors(self, rates: torch.Tensor, lr: float) -> tuple[torch.Tensor, float]:
        return (rates / lr).clamp(max=1.0) if lr else torch.ones_like(rates), lr
