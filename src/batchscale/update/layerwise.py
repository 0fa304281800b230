"""Momentum SGD with a rate for each weight tensor, by the ratio of the norms of weight and gradient.

lambda = eta ||w|| / (||g|| + d ||w|| + eps)    where both norms are positive
u <- m u + a (g + d w);   w <- w - b u          a, b of lambda and the lr: what LARS and LARC differ in

Biases and scales (as ``decay_groups`` tells them) are taken as in plain SGD, with d = 0.
Passes over memory: 2 for the norms, 5 for the update.

Source: You, Gitman, Ginsburg 2017, "Large Batch Training of Convolutional Networks", algorithm 1.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TypeAlias

import torch

from batchscale.update.live import Groups, live

_Tensors: TypeAlias = list[torch.Tensor]


class LayerwiseRates(ABC):
    """What optimizers with a rate for each tensor share.

    u <- m u + a (g + d w); w <- w - b u

    Args:
        groups: (weights to adapt, their decay d), then those taken as in plain SGD, such as biases and scales.
        momentum: m in [0, 1); the attribute of this name may be set anew between steps, both above 0.
        trust_coefficient: eta.
        epsilon: eps.

    Attributes:
        found_inf: see ``FindsInf``.

    Source: You et al. 2017, algorithm 1.
    """

    def __init__(
        self, groups: Groups, momentum: float = 0.9, trust_coefficient: float = 0.001, epsilon: float = 1e-8
    ) -> None:
        self._groups = list(groups)
        self.found_inf: torch.Tensor | None = None
        self.momentum, self._trust, self._epsilon = momentum, trust_coefficient, epsilon
        self._buffers = [[torch.zeros_like(p) for p in parameters] for parameters, _ in self._groups]

    @abstractmethod
    def _plain_rate(self, lr: float) -> float:
        """lambda of what is taken as in plain SGD, and where one of the two norms is 0."""

    @abstractmethod
    def _factors(self, rates: torch.Tensor, lr: float) -> tuple[torch.Tensor, float]:
        """(a, b) of tensors whose lambdas are ``rates``, float64."""

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """One update of every parameter from its ``grad``, at this lr."""
        for number, ((parameters, decay), buffers) in enumerate(zip(self._groups, self._buffers, strict=True)):
            weights, gradients, moving = live(parameters, buffers)
            if not weights:
                continue
            if number:
                factor, b = self._factors(torch.tensor(self._plain_rate(lr), dtype=torch.float64), lr)
                self._update(weights, gradients, moving, decay, float(factor), b)
                continue
            factors, b = self._factors(self._rates(weights, gradients, decay, lr).double(), lr)
            update = self._update_each if factors.device.type == "cpu" else self._update_unasked
            update(weights, gradients, moving, decay, factors, b)

    def _rates(
        self, weights: list[torch.Tensor], gradients: list[torch.Tensor], decay: float, lr: float
    ) -> torch.Tensor:
        """lambda of every tensor."""
        w, g = torch.stack(torch._foreach_norm(weights)), torch.stack(torch._foreach_norm(gradients))
        ratio = self._trust * w / (g + decay * w + self._epsilon)
        return torch.where((w > 0) & (g > 0), ratio, self._plain_rate(lr))

    def _update(self, w: _Tensors, g: _Tensors, u: _Tensors, decay: float, a: float, b: float) -> None:
        """u <- m u + a (g + d w); w <- w - b u: torch's SGD kernel at lr b, whose dampening is 1 - a.

        The kernel takes no buffers at m = 0, and no dampening then: its lr is a b.
        """
        plain = self.momentum == 0
        lr, dampening = (a * b, 0.0) if plain else (b, 1.0 - a)
        torch._fused_sgd_(
            w, g, [] if plain else u, weight_decay=decay, momentum=self.momentum, lr=lr, dampening=dampening,
            nesterov=False, maximize=False, is_first_step=False, found_inf=self.found_inf,
        )  # fmt: skip

    def _update_each(self, w: _Tensors, g: _Tensors, u: _Tensors, decay: float, a: torch.Tensor, b: float) -> None:
        """Tensor by tensor through the fused kernel: 0.29 of the time of foreach operations (docs/log.md)."""
        for one, gradient, buffer, factor in zip(w, g, u, a.tolist(), strict=True):
            self._update([one], [gradient], [buffer], decay, factor, b)

    def _update_unasked(self, w: _Tensors, g: _Tensors, u: _Tensors, decay: float, a: torch.Tensor, b: float) -> None:
        """The same with factors that stay on a device: the kernel's numbers would have to come from the host."""
        decayed = torch._foreach_add(g, w, alpha=decay) if decay else g
        scaled = torch._foreach_mul(decayed, a.to(w[0].dtype).unbind())
        self._update(w, list(scaled), u, 0.0, 1.0, b)

    def state(self) -> dict[str, torch.Tensor]:
        """All that a resume needs, by name: the live tensors, loaded by copying into them."""
        return {f"momentum.{i}": b for i, b in enumerate(b for buffers in self._buffers for b in buffers)}
