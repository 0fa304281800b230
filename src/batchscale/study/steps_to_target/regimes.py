"""The three regimes of steps against the minibatch, from local slopes of the curve.

slope(B) = d log S / d log B, by least squares through a minibatch and its two neighbours

perfect scaling            from the smallest minibatch on, while slope <= -3/4: twice the images, half the steps
diminishing returns        between
maximal data parallelism   up to the largest minibatch, all with slope > -1/4: more images save no steps

On the hyperbola S_min (1 + B_crit / B) the slope is -1 / (1 + B / B_crit): the bounds lie at B_crit / 3 and 3 B_crit.
Source: Shallue et al. 2018, "Measuring the Effects of Data Parallelism on Neural Network Training", section 4.1 (the
regimes; the bounds are ours).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

PERFECT, DIMINISHING, MAXIMAL = "perfect scaling", "diminishing returns", "maximal data parallelism"
PERFECT_SLOPE, MAXIMAL_SLOPE = -0.75, -0.25
FEWEST_POINTS = 3


@dataclass(frozen=True)
class Regime:
    """One regime and where it lies.

    Args:
        name: one of the three.
        minibatches: the studied ones in it, in order.
        begins, ends: images; half way (in log) to the neighbours in the next regime.
    """

    name: str
    minibatches: tuple[int, ...]
    begins: float
    ends: float

    def as_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)


def local_slopes(minibatches: Sequence[int], steps: Sequence[float]) -> list[float]:
    """d log S / d log B at every minibatch; [] for fewer than three.

    Args:
        minibatches: B, images, rising.
        steps: S, to the goal.
    """
    if len(minibatches) < FEWEST_POINTS:
        return []
    x, y = np.log(np.array(minibatches, dtype=float)), np.log(np.array(steps, dtype=float))
    parts = [slice(max(i - 1, 0), i + 2) for i in range(len(x))]
    return [float(np.polyfit(x[part], y[part], 1)[0]) for part in parts]


def regimes(minibatches: Sequence[int], steps: Sequence[float]) -> list[Regime]:
    """The regimes seen, in order of the minibatch; one not seen is left out.

    Args:
        minibatches: B, images, rising; those that reached the goal.
        steps: S, to the goal.

    Returns:
        At most three; [] for fewer than three minibatches.

    Source: Shallue et al. 2018, section 4.1.
    """
    slopes = local_slopes(minibatches, steps)
    if not slopes:
        return []
    perfect = len(list(itertools.takewhile(lambda slope: slope <= PERFECT_SLOPE, slopes)))
    maximal = len(list(itertools.takewhile(lambda slope: slope > MAXIMAL_SLOPE, reversed(slopes))))
    cuts = [0, perfect, len(slopes) - maximal, len(slopes)]
    edges = [minibatches[0], *(math.sqrt(a * b) for a, b in itertools.pairwise(minibatches)), minibatches[-1]]
    return [
        Regime(name, tuple(minibatches[first:end]), edges[first], edges[end])
        for name, first, end in zip((PERFECT, DIMINISHING, MAXIMAL), cuts, cuts[1:], strict=False)
        if end > first
    ]
