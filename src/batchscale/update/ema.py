"""The weights' exponential moving average, moved after every update, and evaluated in their place.

a <- a + (1 - d_t) / (1 - d_1 ... d_t) (w_t - a),   d_t = d^kappa_t

d is the decay of a step of the reference minibatch, kappa_t the examples of step t over that: an average over the same
examples whatever the minibatch, also while it grows. The division makes it an average of trained weights from the first
step on; the usual form, started at the initial weights, tends to it. Batch norm's running averages are averaged
likewise, whole numbers are taken as they are.

Source: Polyak, Juditsky 1992, "Acceleration of stochastic approximation by averaging"; Busbridge et al. 2023, "How to
Scale Your EMA" (d^kappa); the division as in Kingma, Ba 2015, "Adam", section 3.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch

from batchscale.update.optimizers import Optimizer


class AveragedWeights:
    """An optimizer that moves the weights' average after each of its steps.

    a <- a + (1 - d^kappa) / (1 - d^(sum of all kappa)) (w - a)

    Args:
        optimizer: that takes the step.
        weights: name -> live tensor of a model's state.
        decay: d in (0, 1), of a step of the reference minibatch.

    Attributes:
        kappa: of the next step: its examples over the reference minibatch.

    Source: Polyak and Juditsky 1992; Busbridge et al. 2023.
    """

    def __init__(self, optimizer: Optimizer, weights: Mapping[str, torch.Tensor], decay: float) -> None:
        self._optimizer, self._weights, self._decay = optimizer, dict(weights), decay
        floating = {name: w for name, w in weights.items() if w.is_floating_point()}
        self._moving = list(floating.values())
        self._averages = {name: torch.zeros_like(w) for name, w in floating.items()}
        self.kappa = 1.0
        self._steps = torch.zeros((), dtype=torch.float64)  # of the reference minibatch: the sum of all kappa

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """One update of every parameter from its ``grad``, at this lr, and of the averages."""
        self._optimizer.step(lr=lr)
        self._steps += self.kappa
        share = (1 - self._decay**self.kappa) / (1 - self._decay ** float(self._steps))
        torch._foreach_lerp_(list(self._averages.values()), self._moving, share)

    def averaged(self) -> dict[str, torch.Tensor]:
        """The averages under the names of the model's state (the weights themselves before any step)."""
        return {**self._weights, **(self._averages if self._steps else {})}

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Let the model hold the averages for a while; its own weights come back bit by bit."""
        weights = {name: w.clone() for name, w in self._weights.items()}
        try:
            self._fill(self.averaged())
            yield
        finally:
            self._fill(weights)

    @torch.no_grad()
    def _fill(self, tensors: Mapping[str, torch.Tensor]) -> None:
        for name, weight in self._weights.items():
            weight.copy_(tensors[name])

    def state(self) -> dict[str, torch.Tensor]:
        """All that a resume needs, by name: the live tensors, loaded by copying into them."""
        averages = {f"ema.{name}": a for name, a in self._averages.items()}
        return {**self._optimizer.state(), "ema_steps": self._steps, **averages}
