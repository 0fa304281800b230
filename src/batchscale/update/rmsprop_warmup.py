"""RMSprop warm-up: the first epochs by RMSprop, then a smooth transition to momentum SGD.

m <- u2 m + (1 - u2) g^2
v <- u1 v - (a + (1 - a) (eta_rms / lr) / (sqrt(m) + eps)) g;   w <- w + lr v

a, the share of SGD, is an ELU of the epoch e, from 0 through 1/2 at the center c to 1 at c + p / 2:

    a = 1/2 exp(2 (e - c) / p), e < c;    1/2 + (e - c) / p, e < c + p / 2;    1 after it

The second branch is a correction of the print, which has 1/2 + 2 (e - c) / p: that would rise to 3/2, then fall to 1.
With half of its slope both branches join smoothly, and a ends at 1.

Source: Akiba, Suzuki, Fukuda 2017, "Extremely Large Minibatch SGD: Training ResNet-50 on ImageNet in 15 Minutes",
section on RMSprop warm-up: u1 = 0.9, u2 = 0.99, eps = 1e-8, eta_rms = 3e-4, c = 10, p = 5.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from batchscale.update.live import Groups, live


def sgd_share(epoch: float, center: float, period: float) -> float:
    """The share a of SGD in an update at this epoch (any real number), in (0, 1]."""
    progress = 2 * (epoch - center) / period
    return 0.5 * math.exp(progress) if progress < 0 else min(0.5 + 0.5 * progress, 1.0)


class RMSpropWarmup:
    """RMSprop that turns into momentum SGD.

    v <- u1 v - (a + (1 - a) (eta_rms / lr) / (sqrt(m) + eps)) (g + d w); w <- w + lr v

    Args:
        groups: (parameters, decay d of theirs).
        epoch_at: updates done -> epoch, such as that of a plan; a step that is skipped (fp16: its gradient overflowed)
            is no update, so the transition comes so many steps later.
        momentum: u1 in [0, 1); the attribute of this name may be set anew between steps.
        square_decay: u2 in [0, 1).
        rmsprop_lr: eta_rms.
        center_epochs: c of the transition.
        period_epochs: p of the transition.
        epsilon: eps.

    Source: Akiba et al. 2017.
    """

    def __init__(
        self,
        groups: Groups,
        epoch_at: Callable[[int], float],
        momentum: float = 0.9,
        square_decay: float = 0.99,
        rmsprop_lr: float = 3e-4,
        center_epochs: float = 10.0,
        period_epochs: float = 5.0,
        epsilon: float = 1e-8,
    ) -> None:
        self._groups = [(p, d) for p, d in groups if p]
        self._epoch_at, self._center, self._period = epoch_at, center_epochs, period_epochs
        self.momentum, self._square_decay = momentum, square_decay
        self._rmsprop_lr, self._epsilon = rmsprop_lr, epsilon
        self._squares = [[torch.zeros_like(p) for p in parameters] for parameters, _ in self._groups]
        self._velocities = [[torch.zeros_like(p) for p in parameters] for parameters, _ in self._groups]
        self._steps = torch.zeros((), dtype=torch.int64)

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """One update of every parameter from its ``grad``, at this lr."""
        share = sgd_share(self._epoch_at(int(self._steps)), self._center, self._period)
        rms = (1 - share) * self._rmsprop_lr / lr if lr else 0.0  # at lr = 0 nothing moves
        self._steps += 1
        for (parameters, decay), squares, velocities in zip(self._groups, self._squares, self._velocities, strict=True):
            weights, gradients, square, velocity = live(parameters, squares, velocities)
            if not weights:
                continue
            if decay:
                gradients = list(torch._foreach_add(gradients, weights, alpha=decay))
            torch._foreach_mul_(square, self._square_decay)
            torch._foreach_addcmul_(square, gradients, gradients, value=1 - self._square_decay)
            torch._foreach_mul_(velocity, self.momentum)
            torch._foreach_add_(velocity, gradients, alpha=-share)
            if rms:
                root = torch._foreach_sqrt(square)
                torch._foreach_add_(root, self._epsilon)
                torch._foreach_addcdiv_(velocity, gradients, root, value=-rms)
            torch._foreach_add_(weights, velocity, alpha=lr)

    def state(self) -> dict[str, torch.Tensor]:
        """All that a resume needs, by name: the live tensors, loaded by copying into them."""
        live_tensors = {"steps": self._steps}
        for name, groups in (("square", self._squares), ("velocity", self._velocities)):
            live_tensors |= {f"{name}.{i}": t for i, t in enumerate(t for tensors in groups for t in tensors)}
        return live_tensors
