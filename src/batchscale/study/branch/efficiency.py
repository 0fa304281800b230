"""Half efficiency: the minibatch at which a branch needs twice the examples that factor 1 needs for the same loss.

r(f) = E_f / E_1,   E_f: examples at which the branch first has the loss that factor 1 has at the end of the window
half efficiency: r = 2, between two factors on the straight line, which E = E_min (1 + B / B_crit) is in B

By that hyperbola r = 2 lies at B_crit + 2 kn: factor 1 itself needs more than E_min. So B_crit = B(r = 2) - 2 kn.

Source: McCandlish et al. 2018, section 2; Shallue et al. 2018 (the hyperbola).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from batchscale.study.branch.paired import FEWEST_SEEDS, t_interval

Path = Sequence[tuple[int, float]]
_TWICE = 2.0


def examples_to(path: Path, goal: float) -> float | None:
    """The examples at which a path first has a loss, between two evaluations on the straight line.

    Args:
        path: (examples, loss), rising in examples.
        goal: the loss.

    Returns:
        None where it never has.
    """
    for place, (examples, loss) in enumerate(path):
        if loss <= goal:
            if not place:
                return float(examples)
            earlier, higher = path[place - 1]
            return earlier + (examples - earlier) * (
                (higher - goal) / (higher - loss) if math.isfinite(higher) else 1.0
            )
    return None


@dataclass(frozen=True)
class Crossing:
    """Where one seed's r passes 2.

    Attributes:
        low: the largest factor before it.
        high: the smallest factor behind it; None where no factor needs twice the examples.
        point: in between; None where there is no high.
        bracketed: that the factor behind it never reached the loss, so that the point is a guess between the two.
    """

    low: int
    high: int | None
    point: float | None
    bracketed: bool = False

    def ends(self) -> tuple[float, float]:
        """Where it may lie: at the point, or anywhere between the factors."""
        assert self.high is not None
        assert self.point is not None
        return (float(self.low), float(self.high)) if self.bracketed else (self.point, self.point)


def crossing(ratios: Mapping[int, float]) -> Crossing:
    """The first factor, rising, at which twice the examples are needed.

    Args:
        ratios: factor -> r, rising, 1 first; infinite where a branch has not reached the loss in twice the window.
    """
    for (low, below), (high, ratio) in pairwise(ratios.items()):
        if ratio >= _TWICE:
            earlier = [(f, r) for f, r in ratios.items() if f <= low]
            return Crossing(low, high, _between(earlier, (low, below), (high, ratio)), not math.isfinite(ratio))
    return Crossing(max(ratios), None, None)


def _between(earlier: Path | Sequence[tuple[int, float]], low: tuple[int, float], high: tuple[int, float]) -> float:
    """On the line through both; where the upper one is not known, on that through the two before, else midway."""
    if math.isfinite(high[1]):
        return low[0] + (high[0] - low[0]) * (_TWICE - low[1]) / (high[1] - low[1])
    if len(earlier) > 1 and low[1] > earlier[-2][1]:
        slope = (low[1] - earlier[-2][1]) / (low[0] - earlier[-2][0])
        return min(low[0] + (_TWICE - low[1]) / slope, float(high[0]))
    return math.sqrt(low[0] * high[0])


@dataclass(frozen=True)
class HalfEfficiency:
    """Over the seeds, as a multiple of the trunk's minibatch.

    Attributes:
        factor: the geometric mean over seeds; None where a seed has no crossing, or there is no seed.
        interval: 90 %, by Student's t on logarithms, from the lower ends of where each may lie to the upper ones;
            [smallest bound, None] where a seed needs twice the examples at no factor; None of fewer than three seeds.
        seeds: that have a ratio.
        bracketed: of these, seeds whose larger factor never reached the loss.
    """

    factor: float | None
    interval: tuple[float, float | None] | None
    seeds: int
    bracketed: int = 0

    @staticmethod
    def b_crit(factor: float | None) -> float | None:
        """B_crit = B(r = 2) - 2 kn, over kn; None where that is not above 0, as no hyperbola has it."""
        return None if factor is None or factor <= _TWICE else factor - _TWICE


def half_efficiency(crossings: Sequence[Crossing]) -> HalfEfficiency:
    """One number of all seeds.

    Args:
        crossings: one a seed.
    """
    enough = len(crossings) >= FEWEST_SEEDS
    logs = [math.log(each.point) for each in crossings if each.point is not None]
    if not crossings:
        return HalfEfficiency(None, None, 0)
    if len(logs) < len(crossings):
        lowest = float(min(each.low for each in crossings))
        return HalfEfficiency(None, (lowest, None) if enough else None, len(crossings))
    lower, upper = zip(*(each.ends() for each in crossings), strict=True)
    low, high = (t_interval([math.log(end) for end in ends]) for ends in (lower, upper))
    interval = None if low is None or high is None else (math.exp(low[0]), math.exp(high[1]))
    bracketed = sum(each.bracketed for each in crossings)
    return HalfEfficiency(math.exp(statistics.fmean(logs)), interval, len(crossings), bracketed)
