"""AdaScale: the lr of a larger minibatch by how much it gains, measured in every step from the workers' gradients.

With B the reference minibatch, S = kn / B, sigma^2 = (trace of an example's covariance) / B and mu^2 = |G|^2:

    r_t = (sigma^2 + mu^2) / (sigma^2 / S + mu^2)         the gain, between 1 and S (also of an S below 1)
    lr(t) = r_t lr_1(floor tau_t),   tau_(t+1) = tau_t + r_t

lr_1 is the schedule at the reference minibatch in its steps: a step of gain r is worth r of them. Where gradients are
all noise r = S (linear scaling), where they are all alike r = 1. sigma^2 (at least 1e-6) and mu^2 (at least 0) are
moving averages with theta = max(1 - S / 1000, 0), for the first 1 / (1 - theta) steps the means of all so far.

Source: Johnson, Agrawal, Gu, Guestrin 2020, "AdaScale SGD: A User-Friendly Algorithm for Distributed Training",
algorithm 1 and appendix B.3.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

_LEAST_VARIANCE = 1e-6
_AVERAGED = 1000  # S / 1000 is a step's share in the moving averages


class AdaScale:
    """The lr of every step, from what its own gradients say.

    r = (sigma^2 + mu^2) / (sigma^2 / S + mu^2),   lr = r lr_1(floor tau)

    Args:
        reference: lr_1, by steps of the reference minibatch.
        reference_minibatch: examples.

    Source: Johnson et al. 2020, algorithm 1.
    """

    def __init__(self, reference: Callable[[int], float], reference_minibatch: int) -> None:
        self._reference, self._minibatch = reference, reference_minibatch
        self._tau, self._gain, self._variance, self._square, self._measured = (
            torch.zeros((), dtype=torch.float64) for _ in range(5)
        )

    def hear(self, noise: tuple[float, float] | None, examples: int) -> None:
        """What the gradients of the step that is to be taken say; called once a step, before its lr is asked for.

        Args:
            noise: (|G|^2, tr S); None where they say nothing: the gain stays, and is 1 before any.
            examples: kn of the step.
        """
        self._tau += self._gain  # of the step before, which has been taken
        if noise is None:
            self._gain.masked_fill_(self._gain == 0, 1.0)
            return
        scale = examples / self._minibatch
        square, trace = noise
        self._average(max(trace / self._minibatch, _LEAST_VARIANCE), max(square, 0.0), scale)
        variance, mean = float(self._variance), float(self._square)
        self._gain.fill_((variance + mean) / (variance / scale + mean))

    def _average(self, variance: float, square: float, scale: float) -> None:
        self._measured += 1
        share = min(scale / _AVERAGED, 1.0)  # 1 - theta
        if float(self._measured) < 1 / share:
            share = 1 / float(self._measured)
        for average, value in ((self._variance, variance), (self._square, square)):
            average.mul_(1 - share).add_(share * value)

    def __call__(self, step: int) -> float:
        """The lr of the step that was heard last."""
        return float(self._gain) * self._reference(math.floor(float(self._tau)))

    @property
    def scale_invariant_steps(self) -> float:
        """tau, steps of the reference minibatch that the steps taken so far are worth."""
        return float(self._tau + self._gain)

    def state(self) -> dict[str, torch.Tensor]:
        """Its live tensors by name."""
        return {
            "tau": self._tau, "gain": self._gain, "variance": self._variance, "square": self._square,
            "measured": self._measured,
        }  # fmt: skip
