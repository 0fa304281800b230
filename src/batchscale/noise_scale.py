"""The noise scale: |G|^2 and tr S without bias, from squared norms of parts of a minibatch's gradient; intervals.

A minibatch of B examples falls into u units (workers, passes, examples) of b_i examples. With g_i the mean gradient of
a unit's examples and g that of all B, so that g = sum_i (b_i / B) g_i:

    E |g_i|^2 = |G|^2 + (tr S / b_i) (1 - b_i / N),    E |g|^2 = |G|^2 + (tr S / B) (1 - B / N)

for draws without replacement out of N examples (N infinite: with replacement), G and S their mean gradient and the
covariance of one example's, with N - 1. So without bias, whatever the sizes of the units:

    tr S = (sum_i b_i |g_i|^2 - B |g|^2) / (u - 1),    |G|^2 = |g|^2 - (tr S / B) (1 - B / N)

Both are averaged over steps, and then divided: B_simple = tr S / |G|^2, in examples. Single values of |G|^2 may be
negative; none is clipped.

Its interval is Fieller's: all R for which the mean of tr S - R |G|^2 over blocks of steps is not significantly other
than 0, by Student's t. Where |G|^2 is not significantly above 0, it has no upper end.

Source: McCandlish et al. 2018, appendix A.1 (two sizes: here all units against the whole); Fieller 1954, "Some problems
in interval estimation"; the factor 1 - B / N: Cochran 1977, "Sampling Techniques", theorem 2.2.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

LEVEL = 0.9
"""Of the intervals, where nothing else is said."""

BLOCK_STEPS = 10
"""The fewest steps of a block: steps that follow each other are alike (correlation 0.3 five steps apart was seen)."""

_MOST_BLOCKS = 32  # longer blocks for longer runs: what more degrees of freedom bring is nothing (t: 1.70 for 1.64)


class StepNoise(NamedTuple):
    """What one step's gradients say: |G|^2 and tr S, each without bias; |G|^2 may be negative."""

    gradient_squared: float
    trace: float


def step_noise(
    units: int, unit_squares: float, whole_square: float, examples: int, population: int | None = None
) -> StepNoise:
    """|G|^2 and tr S of a step, from the parts that its units have in the gradient.

    tr S = B^2 (sum_i |c_i|^2 / b_i - |c|^2 / B) / (u - 1),   c_i = (b_i / B) g_i,   c = sum_i c_i = g

    Args:
        units: u, at least 2.
        unit_squares: sum_i |c_i|^2 / b_i.
        whole_square: |c|^2.
        examples: B.
        population: N that the B were drawn from without replacement; None: with replacement.

    Source: see the module; the sum over units is that of a one-way analysis of variance.
    """
    trace = examples**2 * (unit_squares - whole_square / examples) / (units - 1)
    finite = 1 - examples / population if population else 1.0
    return StepNoise(whole_square - trace / examples * finite, trace)


@dataclass(frozen=True)
class NoiseEstimate:
    """What was measured of the noise scale.

    Attributes:
        gradient_squared: |G|^2, without bias; may be negative.
        trace: tr S, of one example.
        low, high: the interval of tr S / |G|^2, in examples; high None where it has no upper end.
        level: of the interval.
    """

    gradient_squared: float
    trace: float
    low: float
    high: float | None
    level: float = LEVEL

    @property
    def noise_scale(self) -> float | None:
        """B_simple = tr S / |G|^2, in examples; None where |G|^2 is not above zero."""
        return self.trace / self.gradient_squared if self.gradient_squared > 0 else None

    @property
    def resolved(self) -> bool:
        """Whether |G|^2 is significantly above zero, so that the noise scale has an upper end."""
        return self.noise_scale is not None and self.high is not None

    def as_json(self) -> dict[str, Any]:
        """Its numbers by name."""
        return {
            "noise_scale": self.noise_scale,
            "interval": [self.low, self.high],
            "gradient_squared": self.gradient_squared,
            "trace": self.trace,
            "resolved": self.resolved,
        }

    def sentence(self, noun: str = "examples") -> str:
        """What it says, for people; ``noun``: what examples are called."""
        per_cent = f"{100 * self.level:g} %"
        if self.noise_scale is None:
            return f"not resolved: |G|^2 is not above zero; at least {self.low:.4g} {noun} ({per_cent})"
        if self.high is None:
            return (
                f"not resolved: {self.noise_scale:.4g} {noun}, at least {self.low:.4g}, without an upper bound "
                f"({per_cent})"
            )
        return f"{self.noise_scale:.4g} {noun}, {self.low:.4g} to {self.high:.4g} ({per_cent})"


class Covariance(NamedTuple):
    """Of the means of |G|^2 and tr S."""

    of_gradient: float
    of_both: float
    of_trace: float


def ratio_interval(
    mean: StepNoise, covariance: Covariance, degrees: int, level: float = LEVEL
) -> tuple[float, float | None]:
    """Fieller's interval of tr S / |G|^2: all R with (tr S - R |G|^2)^2 <= t^2 Var(tr S - R |G|^2), above 0.

    Args:
        mean: of both.
        covariance: of ``mean``.
        degrees: of freedom of Student's t.
        level: such as 0.9.

    Returns:
        (low, high); high None where |G|^2 is not significantly above zero.

    Source: Fieller 1954.
    """
    from scipy.stats import t  # here, so that a step's arithmetic loads no scipy

    square = float(t.ppf((1 + level) / 2, degrees)) ** 2
    gradient, trace = mean
    a = gradient**2 - square * covariance.of_gradient
    b = gradient * trace - square * covariance.of_both
    c = trace**2 - square * covariance.of_trace
    root = math.sqrt(max(b * b - a * c, 0.0))
    if a > 0:
        if gradient < 0:  # significantly negative, as no true value is: nothing bounds the ratio above
            return 0.0, None
        return max((b - root) / a, 0.0), max((b + root) / a, 0.0)
    # Then a R^2 - 2 b R + c <= 0 beyond the larger root, where c > 0: tr S is significantly above zero.
    return (max((b - root) / a, (b + root) / a, 0.0) if c > 0 and a < 0 else 0.0), None


class SummedSteps(NamedTuple):
    """Sums over steps that follow each other."""

    steps: int
    gradient_squared: float
    trace: float


class NoiseBlocks:
    """What many steps have said of the noise scale, in blocks of ten.

    Args:
        sums: [steps, sum of |G|^2, sum of tr S] of each block so far, all but the last of ``BLOCK_STEPS``; None: none.

    Attributes:
        sums: the very list, to which steps are added; plain numbers, to be kept in a document.
    """

    def __init__(self, sums: list[list[float]] | None = None) -> None:
        self.sums: list[list[float]] = [] if sums is None else sums

    def add(self, noise: StepNoise) -> None:
        """One step more."""
        if not self.sums or self.sums[-1][0] == BLOCK_STEPS:
            self.sums.append([0, 0.0, 0.0])
        self.sums[-1] = [total + one for total, one in zip(self.sums[-1], (1, *noise), strict=True)]

    @property
    def _blocks(self) -> list[SummedSteps]:
        return [SummedSteps(int(steps), gradient, trace) for steps, gradient, trace in self.sums]

    @property
    def steps(self) -> int:
        """How many so far."""
        return sum(block.steps for block in self._blocks)

    def estimate(self, level: float = LEVEL) -> NoiseEstimate | None:
        """The means over all steps, and the interval of their ratio; None before the first step.

        Of fewer than two blocks of ten steps there is no interval: [0, None].
        """
        if not self.sums:
            return None
        whole = _joined(self._blocks)
        mean = StepNoise(whole.gradient_squared / whole.steps, whole.trace / whole.steps)
        blocks = self._long_blocks()
        if len(blocks) < 2:
            return NoiseEstimate(*mean, 0.0, None, level)
        return NoiseEstimate(*mean, *ratio_interval(mean, _covariance(blocks, mean), len(blocks) - 1, level), level)

    def _long_blocks(self) -> list[SummedSteps]:
        """At most 32 blocks, each of ten steps or more, all alike but the last."""
        blocks = self._blocks
        full = sum(block.steps == BLOCK_STEPS for block in blocks)
        at_once = max(-(-full // _MOST_BLOCKS), 1)
        count = max(full // at_once, 1)
        cuts = [number * at_once for number in range(count)] + [len(blocks)]
        return [_joined(blocks[first:end]) for first, end in itertools.pairwise(cuts)]


def _joined(blocks: Sequence[SummedSteps]) -> SummedSteps:
    return SummedSteps(
        sum(block.steps for block in blocks),
        math.fsum(block.gradient_squared for block in blocks),
        math.fsum(block.trace for block in blocks),
    )


def _covariance(blocks: Sequence[SummedSteps], mean: StepNoise) -> Covariance:
    """Of the mean over all steps, from how far the blocks lie from it: sum_j w_j^2 d_j d_j' / (m (m - 1)), w_j = n_j /
    the mean n."""
    count = len(blocks)
    share = count / sum(block.steps for block in blocks)
    gradients = [share * (block.gradient_squared - block.steps * mean.gradient_squared) for block in blocks]
    traces = [share * (block.trace - block.steps * mean.trace) for block in blocks]
    degrees = count * (count - 1)
    return Covariance(
        math.fsum(d * d for d in gradients) / degrees,
        math.fsum(d * e for d, e in zip(gradients, traces, strict=True)) / degrees,
        math.fsum(e * e for e in traces) / degrees,
    )
