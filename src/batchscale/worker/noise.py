"""Multiplicative gradient noise: every image's gradient times a random factor around 1.

g_j = (1 / kn) sum_{x in B_j} z_jx grad l(x, w),    z_jx ~ N(1, sigma^2), independent

Keyed by (seed, step, worker), one number an image. With sigma^2 in proportion to kn the noise of a large minibatch's
update is that of a small one's at the same lr. The reported loss is without the factors.

Source: Hoffer, Hubara, Soudry 2017, "Train longer, generalize better", section on matching the weight increments'
statistics.
"""

from __future__ import annotations

import numpy as np
import torch

from batchscale.randomness import key, normal

_NOISE = 101  # stream


class GradientNoise:
    """Factors on the gradients of a pass, put in at the outputs: d (z l) / d outputs = z dl / d outputs.

    z = 1 + sigma e,    e ~ N(0, 1)

    Args:
        sigma: standard deviation of a factor, above 0.
        seed: of the run.
        per_worker: n.

    Source: Hoffer et al. 2017.
    """

    def __init__(self, sigma: float, seed: int, per_worker: int) -> None:
        self._sigma, self._seed, self._per_worker = sigma, seed, per_worker

    def factors(self, step: int, worker: int, images: int) -> torch.Tensor:
        """z of a pass whose first worker is ``worker``: float64 (images,), images a multiple of n."""
        counters = np.arange(self._per_worker)
        drawn = [
            normal(key(self._seed, step, w, _NOISE), counters)
            for w in range(worker, worker + images // self._per_worker)
        ]
        return torch.from_numpy(1 + self._sigma * np.concatenate(drawn))

    def __call__(self, outputs: torch.Tensor, step: int, worker: int) -> torch.Tensor:
        """outputs (examples, ...), as they are; their gradient will be multiplied."""
        factors = self.factors(step, worker, len(outputs)).to(outputs)
        factors = factors.view(-1, *[1] * (outputs.ndim - 1))
        outputs.register_hook(lambda gradient: gradient * factors)  # type: ignore[no-untyped-call]
        return outputs
