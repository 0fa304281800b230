"""LARS: momentum SGD whose lr is fitted to each weight tensor by the ratio of the norms of weight and gradient.

lambda = eta ||w|| / (||g|| + d ||w|| + eps)    where both norms are positive, else 1
v <- m v + lr lambda (g + d w);   w <- w - v

Biases and scales take lambda = 1 and d = 0. The step is that of ``update/layerwise.py``.

Source: You, Gitman, Ginsburg 2017, "Large Batch Training of Convolutional Networks", algorithm 1.
"""

from __future__ import annotations

import torch

from batchscale.update.layerwise import LayerwiseRates


class LARS(LayerwiseRates):
    """Layer-wise adaptive rate scaling.

    v <- m v + lr lambda (g + d w); w <- w - v

    Args:
        groups: (weights to adapt, their decay d), then those taken as in plain SGD, such as biases and scales.
        momentum: m in [0, 1); the attribute of this name may be set anew between steps, both above 0.
        trust_coefficient: eta.
        epsilon: eps.

    Examples:
        >>> weights = torch.nn.Parameter(torch.tensor([3.0, 4.0]))  # ||w|| = 5
        >>> weights.grad = torch.tensor([0.6, 0.8])  # ||g|| = 1
        >>> batchscale.LARS([([weights], 0.0)], trust_coefficient=0.01).step(lr=1.0)
        >>> weights.data  # w - 0.01 * 5 / 1 g
        tensor([2.9700, 3.9600])

    Source: You et al. 2017, algorithm 1.
    """

    def _plain_rate(self, lr: float) -> float:
        return 1.0

    def _factors(self, rates: torch.Tensor, lr: float) -> tuple[torch.Tensor, float]:
        return lr * rates, 1.0
