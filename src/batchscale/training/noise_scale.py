"""The noise scale in training: what the passes' gradients and their sum say of |G|^2 and tr S, every so many steps.

rides beside the gradient:   u,   sum_i |c_i|^2 / b_i   over the u passes of all processes, of b_i examples each
after the sum, before clipping and the update:   |c|^2,   c = sum_i c_i

c_i is a pass's part of the gradient: that of its examples' losses, divided by kn. All weights that are trained count,
one that several modules share once. Norms are float64, and summed exactly (``aggregate/exact_sum.py``): in exact mode,
where a pass is a worker, the numbers are the same for every W.

Source: McCandlish et al. 2018, appendix A.1; the estimators stand in ``noise_scale.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

from batchscale.aggregate.exact_sum import Digits, squared_norm, value_of
from batchscale.aggregate.riders import PartGradient, Rider, Sums
from batchscale.noise_scale import StepNoise, step_noise

NOISE = "noise_scale"


def measured_after(step: int, every: int | None) -> bool:
    """Whether step ``step`` (0 is the first) is one of every so many that are measured; None: none is."""
    return every is not None and (step + 1) % every == 0


class NoiseScaleRider(Rider):
    """Sums the squared norms of the passes' gradients, and notes that of the whole.

    Whole numbers: passes; the bits of a digit, 0 where the whole gradient was not finite; the digits of both sums.

    Args:
        every: so many steps, the last of them is measured.
        most_passes: of a step, over all processes.
        device: of the gradients.
        hears: is told of a measured step, before its update, what the loop is told after it, and the examples.
    """

    name = NOISE
    decides = True  # a norm that is not finite is one of a gradient that is not

    def __init__(
        self,
        every: int,
        most_passes: int,
        device: torch.device,
        hears: Callable[[Sequence[float], int], None] | None = None,
    ) -> None:
        self._every, self._digits, self._hears = every, Digits(most_passes, device), hears
        self.whole_numbers = 2 + 2 * self._digits.length

    def apart(self, step: int) -> bool:
        """Every so many steps."""
        return measured_after(step, self._every)

    def passed(self, sums: Sums, gradient: PartGradient) -> None:
        """Add |c_i|^2 / b_i."""
        square = squared_norm(gradient.values) / (gradient.scale**2 * gradient.examples)
        sums.whole[0] += 1
        sums.whole[2 : 2 + self._digits.length] += self._digits.of(square)

    def summed(self, sums: Sums, gradient: PartGradient) -> None:
        """Note |c|^2."""
        sums.whole[1] = self._digits.bits
        sums.whole[2 + self._digits.length :] = self._digits.of(squared_norm(gradient.values))
        if self._hears is not None:
            self._hears(sums.whole.tolist(), gradient.examples)


def noise_of(numbers: Sequence[float], examples: int, population: int) -> StepNoise | None:
    """|G|^2 and tr S of a step, the same on all processes.

    Args:
        numbers: that the rider tells; () where there is none.
        examples: kn.
        population: N, the training examples; an epoch shows each once.

    Returns:
        None where the step was not measured, was not finite, or had a single pass.
    """
    if not numbers or not numbers[1] or numbers[0] < 2 or not all(map(math.isfinite, numbers)):
        return None
    passes, bits, length = int(numbers[0]), int(numbers[1]), len(numbers) // 2 - 1
    squares, whole = (value_of(part, bits) for part in (numbers[2 : 2 + length], numbers[2 + length :]))
    return step_noise(passes, squares, whole, examples, population)
