"""LARS: momentum SGD whose lr is fitted to each weight tensor by the ratio of the norms of weight and gradient.

lambda = eta ||w|| / (||g|| + d ||w|| + eps)    where both norms are positive, else 1
v <- m v + lr lambda (g + d w);   w <- w - v

Biases and scales (as ``decay_groups`` tells them) take lambda = 1 and d = 0.
Passes over memory: 2 for the norms, 5 for the update.

Source: You, Gitman, Ginsburg 2017, "Large Batch Training of Convolutional Networks", algorithm 1.
"""

from __future__ import annotations

import torch

from batchscale.update.live import Groups, live


def local_rates(
    weights: list[torch.Tensor],
    gradients: list[torch.Tensor],
    decay: float,
    trust_coefficient: float,
    epsilon: float,
    without: float = 1.0,
) -> list[float]:
    """lambda of every tensor; ``without`` where one of the two norms is 0."""
    w, g = torch.stack(torch._foreach_norm(weights)), torch.stack(torch._foreach_norm(gradients))
    ratio = trust_coefficient * w / (g + decay * w + epsilon)
    local: list[float] = torch.where((w > 0) & (g > 0), ratio, without).tolist()
    return local


class LARS:
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
                self._update(weights, gradients, moving, decay, lr)
                continue
            # Tensor by tensor through the fused kernel: 0.29 of the time of foreach operations (docs/log.md).
            rates = local_rates(weights, gradients, decay, self._trust, self._epsilon)
            for w, g, v, local in zip(weights, gradients, moving, rates, strict=True):
                self._update([w], [g], [v], decay, lr * local)

    def _update(
        self, w: list[torch.Tensor], g: list[torch.Tensor], v: list[torch.Tensor], decay: float, rate: float
    ) -> None:
        """v <- m v + rate (g + d w); w <- w - v: torch's SGD kernel at lr 1, whose dampening is 1 - rate.

        The kernel takes no buffers at m = 0, and no dampening then: its lr is the rate.
        """
        plain = self.momentum == 0
        lr, dampening = (rate, 0.0) if plain else (1.0, 1.0 - rate)
        torch._fused_sgd_(
            w, g, [] if plain else v, weight_decay=decay, momentum=self.momentum, lr=lr, dampening=dampening,
            nesterov=False, maximize=False, is_first_step=False,
        )  # fmt: skip

    def state(self) -> dict[str, torch.Tensor]:
        """All that a resume needs, by name: the live tensors, loaded by copying into them."""
        return {f"momentum.{i}": b for i, b in enumerate(b for buffers in self._buffers for b in buffers)}
