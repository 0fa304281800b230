"""The three regimes of steps against the minibatch, from local slopes of the curve.

slope(B) = d log S / d log B, by least squares through a minibatch and its two neighbours

perfect scaling            from the smallest minibatch on, while slope <= -3/4: twice the images, half the steps
diminishing returns        between
maximal data parallelism   up to the largest minibatch, all with slope > -1/4: more images save no steps

On the hyperbola S_min (1 + B_crit / B) the slope is -1 / (1 + B / B_crit): the bounds lie at B_crit / 3 and 3 B_crit.
S lies after the last evaluation above the goal, S_before, so each slope lies in a range. A regime is not sure where it
rests on one end of the curve alone (a slope of two points), where no slope between the ends is in it over its whole
range, or where one of its minibatches has a slope wholly outside.

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
import numpy.typing as npt

PERFECT, DIMINISHING, MAXIMAL = "perfect scaling", "diminishing returns", "maximal data parallelism"
PERFECT_SLOPE, MAXIMAL_SLOPE = -0.75, -0.25
_BOUNDS = {
    PERFECT: (-math.inf, PERFECT_SLOPE),
    DIMINISHING: (PERFECT_SLOPE, MAXIMAL_SLOPE),
    MAXIMAL: (MAXIMAL_SLOPE, math.inf),
}
FEWEST_POINTS = 3


@dataclass(frozen=True)
class Regime:
    """One regime and where it lies.

    Args:
        name: one of the three.
        minibatches: the studied ones in it, in order.
        begins, ends: images; half way (in log) to the neighbours in the next regime.
        doubt: why it is not sure; None: it is.
    """

    name: str
    minibatches: tuple[int, ...]
    begins: float
    ends: float
    doubt: str | None

    @property
    def text(self) -> str:
        """Its name, and whether it is sure."""
        return f"{self.name} (not sure)" if self.doubt else self.name

    def as_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)


def local_slopes(minibatches: Sequence[int], steps: Sequence[float]) -> list[float]:
    """d log S / d log B at every minibatch; [] for fewer than three.

    Args:
        minibatches: B, images, rising.
        steps: S, to the goal.
    """
    y = np.log(np.array(steps, dtype=float))
    return [float(weights @ y[part]) for part, weights in _windows(minibatches)]


def slope_ranges(
    minibatches: Sequence[int], steps: Sequence[float], steps_before: Sequence[float]
) -> list[tuple[float, float]]:
    """The lowest and the highest slope at every minibatch, S anywhere after S_before and up to S.

    Args:
        minibatches: B, images, rising.
        steps: S, to the goal.
        steps_before: of the last evaluation above the goal; 0: a step is the least.
    """
    last = np.log(np.array(steps, dtype=float))
    least = np.log(np.maximum(np.array(steps_before, dtype=float), 1.0))
    ends = [(weights * least[part], weights * last[part]) for part, weights in _windows(minibatches)]
    return [(float(np.minimum(a, b).sum()), float(np.maximum(a, b).sum())) for a, b in ends]


def _windows(minibatches: Sequence[int]) -> list[tuple[slice, npt.NDArray[np.floating[Any]]]]:
    """For every minibatch its neighbours, and the weights of their log S in the least-squares slope."""
    if len(minibatches) < FEWEST_POINTS:
        return []
    x = np.log(np.array(minibatches, dtype=float))
    parts = [slice(max(i - 1, 0), i + 2) for i in range(len(x))]
    apart = [x[part] - x[part].mean() for part in parts]
    return [(part, d / (d @ d)) for part, d in zip(parts, apart, strict=True)]


def regimes(minibatches: Sequence[int], steps: Sequence[float], steps_before: Sequence[float]) -> list[Regime]:
    """The regimes seen, in order of the minibatch; one not seen is left out.

    Args:
        minibatches: B, images, rising; those that reached the goal.
        steps: S, to the goal.
        steps_before: of the last evaluation above the goal.

    Returns:
        At most three; [] for fewer than three minibatches.

    Source: Shallue et al. 2018, section 4.1.
    """
    slopes = local_slopes(minibatches, steps)
    if not slopes:
        return []
    ranges = slope_ranges(minibatches, steps, steps_before)
    perfect = len(list(itertools.takewhile(lambda slope: slope <= PERFECT_SLOPE, slopes)))
    maximal = len(list(itertools.takewhile(lambda slope: slope > MAXIMAL_SLOPE, reversed(slopes))))
    cuts = [0, perfect, len(slopes) - maximal, len(slopes)]
    edges = [minibatches[0], *(math.sqrt(a * b) for a, b in itertools.pairwise(minibatches)), minibatches[-1]]
    return [
        Regime(name, tuple(minibatches[first:end]), edges[first], edges[end], _doubt(name, first, end, ranges))
        for name, first, end in zip((PERFECT, DIMINISHING, MAXIMAL), cuts, cuts[1:], strict=False)
        if end > first
    ]


def _doubt(name: str, first: int, end: int, ranges: Sequence[tuple[float, float]]) -> str | None:
    """Why the regime of the minibatches first .. end - 1 is not sure."""
    above, up_to = _BOUNDS[name]
    between = [ranges[i] for i in range(max(first, 1), min(end, len(ranges) - 1))]
    if not between:
        return "it rests on one end of the curve alone, a slope of two points"
    if outside := next((r for r in ranges[first:end] if r[1] <= above or r[0] > up_to), None):
        return f"a slope in it lies outside its bounds whatever the evaluations round ({_range_text(outside)})"
    if not any(low > above and high <= up_to for low, high in between):
        widest = max(between, key=lambda r: r[1] - r[0])
        return f"every slope in it crosses its bounds within what the evaluations round (such as {_range_text(widest)})"
    return None


def _range_text(ends: tuple[float, float]) -> str:
    return f"{ends[0]:.2f} to {ends[1]:.2f}"
