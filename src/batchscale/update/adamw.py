"""AdamW: Adam with the weight decay taken out of the gradient, by torch's fused kernel.

m <- b1 m + (1 - b1) g;   v <- b2 v + (1 - b2) g^2
w <- (1 - lr d) w - lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)

Where the betas change, b^t is the product of those used.

Source: Loshchilov, Hutter 2019, "Decoupled Weight Decay Regularization", algorithm 2.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from batchscale.update.debiasing import Debiasing
from batchscale.update.live import Groups


class AdamW:
    """Adam with decoupled weight decay.

    w <- (1 - lr d) w - lr Adam's direction

    Args:
        groups: (parameters, decay d of theirs).
        beta1: b1 in [0, 1); it, beta2 and epsilon may be set anew between steps.
        beta2: b2 in [0, 1).
        epsilon: eps.

    Attributes:
        decay_factor: what every d is multiplied by in the next step.
        found_inf: see ``FindsInf``.

    Source: Loshchilov and Hutter 2019, algorithm 2.
    """

    def __init__(self, groups: Groups, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8) -> None:
        self.beta1, self.beta2, self.epsilon, self.decay_factor = beta1, beta2, epsilon, 1.0
        self.found_inf: torch.Tensor | None = None
        filled = [(p, d) for p, d in groups if p]
        self._parameters = [p for parameters, _ in filled for p in parameters]
        ends = [sum(len(p) for p, _ in filled[: i + 1]) for i in range(len(filled))]
        self._groups = [(range(end - len(p), end), d) for end, (p, d) in zip(ends, filled, strict=True)]
        device = self._parameters[0].device if self._parameters else None
        self._steps = torch.zeros(len(self._parameters), device=device)
        self._first, self._second = ([torch.zeros_like(p) for p in self._parameters] for _ in range(2))
        self._debiasing = Debiasing(self._steps)

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """One update of every parameter from its ``grad``, at this lr."""
        changed = self._debiasing.begin(self.beta1, self.beta2)
        counts = self._steps.unbind()
        for numbers, stated in self._groups:
            used, decay = [i for i in numbers if self._parameters[i].grad is not None], stated * self.decay_factor
            if not used:
                continue
            torch._foreach_add_([counts[i] for i in used], 1)
            if self.found_inf is not None:
                torch._foreach_sub_([counts[i] for i in used], [self.found_inf] * len(used))
            if not changed:
                self._update(used, [counts[i] for i in used], lr, self.epsilon, decay)
                continue
            for c in self._debiasing.corrections(used):
                far = self._debiasing.far(len(c.places))
                # The kernel decays by lr d: the decay must not see the correction of the lr.
                self._update([used[i] for i in c.places], far, lr * c.lr, self.epsilon * c.epsilon, decay / c.lr)

    def _update(self, used: Sequence[int], counts: list[torch.Tensor], lr: float, epsilon: float, decay: float) -> None:
        weights: list[torch.Tensor] = [self._parameters[i] for i in used]
        gradients = [p.grad for p in (self._parameters[i] for i in used) if p.grad is not None]
        torch._fused_adamw_(
            weights, gradients, [self._first[i] for i in used], [self._second[i] for i in used], [], counts, lr=lr,
            beta1=self.beta1, beta2=self.beta2, weight_decay=decay, eps=epsilon, amsgrad=False, maximize=False,
            found_inf=self.found_inf,
        )  # fmt: skip

    def state(self) -> dict[str, torch.Tensor]:
        """All that a resume needs, by name: the live tensors, loaded by copying into them."""
        return {
            "steps": self._steps,
            **{f"first.{i}": tensor for i, tensor in enumerate(self._first)},
            **{f"second.{i}": tensor for i, tensor in enumerate(self._second)},
            **self._debiasing.state(),
        }
