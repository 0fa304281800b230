"""Differences to factor 1, seed by seed, and how far the minibatch may grow without loss.

d_s(f) = loss of factor f - loss of factor 1     same seed, same examples, one evaluation set
interval: mean d -+ t_(S-1, 95 %) s_d / sqrt S   90 %, two-sided; its upper end is the 95 % bound of a one-sided test
passed:   the upper end is below the tolerance (one-sided non-inferiority)
worse:    the lower end is above it

The factors are tested in rising order, each at 5 %, up to the first that does not pass: in a fixed sequence, so no
correction for their number is needed. The seed is the unit of replication: within one, neither steps nor examples are.

Source: Student 1908; Maurer, Hothorn and Lehmacher 1995 (tests in a fixed sequence).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

from scipy.stats import t

FEWEST_SEEDS = 3
"""Fewer, and there is no interval."""
CONFIDENCE = 0.90
Interval = tuple[float, float]
Verdict = Literal["passed", "worse", "not told"]


def t_interval(values: Sequence[float]) -> Interval | None:
    """The 90 % interval of a mean by Student's t; None of fewer than three values, or where one is not finite."""
    if len(values) < FEWEST_SEEDS or not all(map(math.isfinite, values)):
        return None
    mean, error = statistics.fmean(values), statistics.stdev(values) / math.sqrt(len(values))
    reach = _t_quantile(len(values) - 1) * error
    return mean - reach, mean + reach


@cache
def _t_quantile(degrees: int) -> float:
    return float(t.ppf((1 + CONFIDENCE) / 2, degrees))


@dataclass(frozen=True)
class Difference:
    """Of one factor, or one control, to factor 1.

    Args:
        factor: f.
        by_seed: seed -> d; infinite where the branch diverged.
    """

    factor: int
    by_seed: Mapping[int, float]

    @property
    def mean(self) -> float | None:
        """Over the seeds; infinite where one diverged, None where there is none."""
        return statistics.fmean(self.by_seed.values()) if self.by_seed else None

    @property
    def interval(self) -> Interval | None:
        """Of the mean."""
        return t_interval(tuple(self.by_seed.values()))

    def verdict(self, tolerance: float) -> Verdict:
        """Whether it is shown to be without loss, or worse, or neither.

        Args:
            tolerance: in the loss's unit.
        """
        if len(self.by_seed) >= FEWEST_SEEDS and all(math.isinf(d) for d in self.by_seed.values()):
            return "worse"
        if self.interval is None:
            return "not told"
        low, high = self.interval
        return "passed" if high < tolerance else "worse" if low > tolerance else "not told"

    @property
    def gains(self) -> bool:
        """Whether it is shown to be better than factor 1."""
        return self.interval is not None and self.interval[1] < 0


def difference(factor: int, losses: Mapping[int, float], reference: Mapping[int, float]) -> Difference:
    """The differences of the seeds that both have.

    Args:
        factor: f.
        losses: seed -> loss of the branch.
        reference: seed -> loss of factor 1; a seed whose factor 1 diverged has none to compare with.
    """
    return Difference(
        factor,
        {seed: losses[seed] - loss for seed, loss in reference.items() if seed in losses and math.isfinite(loss)},
    )


@dataclass(frozen=True)
class NoLoss:
    """How far the minibatch may grow.

    Attributes:
        largest: the largest factor that passed, 1 where none did; None where no factor can be told, for want of seeds.
        worse: the smallest factor that is shown to be worse.
        verdicts: factor -> what its interval says, also beyond the first that did not pass.
    """

    largest: int | None
    worse: int | None
    verdicts: Mapping[int, Verdict]


def largest_without_loss(differences: Sequence[Difference], tolerance: float) -> NoLoss:
    """The tests of all factors in a fixed sequence.

    Args:
        differences: of the factors above 1, rising.
        tolerance: in the loss's unit.
    """
    verdicts = {each.factor: each.verdict(tolerance) for each in differences}
    told = any(each.interval is not None for each in differences) or "worse" in verdicts.values()
    largest = 1
    for factor, verdict in verdicts.items():
        if verdict != "passed":
            break
        largest = factor
    worse = next((factor for factor, verdict in verdicts.items() if verdict == "worse"), None)
    return NoLoss(largest if told else None, worse, verdicts)


def set_error(chunks: Sequence[tuple[int, float]]) -> float | None:
    """The standard error of a mean difference that comes of the evaluation set alone, from its chunks.

    SE^2 = C / (C - 1) sum_c (m_c / M)^2 (D_c - D)^2,   D = sum_c (m_c / M) D_c

    Args:
        chunks: (m_c examples, D_c mean difference) of each.

    Returns:
        None of fewer than four chunks.
    """
    total, count = sum(size for size, _ in chunks), len(chunks)
    if count < _FEWEST_CHUNKS:
        return None
    mean = sum(size * value for size, value in chunks) / total
    return math.sqrt(count / (count - 1) * sum((size / total * (value - mean)) ** 2 for size, value in chunks))


_FEWEST_CHUNKS = 4


def examples_that_would_do(examples: int, error: float, tolerance: float) -> int | None:
    """How large the evaluation set must be to tell the tolerance; None where it is.

    M' = M (z SE / tolerance)^2,   z = 1.645, the 95 % quantile of the normal distribution

    Args:
        examples: M.
        error: SE, from ``set_error``.
        tolerance: in the loss's unit.
    """
    reach = statistics.NormalDist().inv_cdf((1 + CONFIDENCE) / 2) * error
    return math.ceil(examples * (reach / tolerance) ** 2) if reach > tolerance else None
