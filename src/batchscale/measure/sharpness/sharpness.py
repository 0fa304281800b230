"""The sharpness of a loss around its weights, in both forms, in the full space and in random subspaces.

100 (max f(x + A y) - f(x)) / (1 + f(x)) over |y_i| <= b_i

The maximum is L-BFGS-B's after its limit of iterations, so it is a lower bound of the true one. Over subspaces the
sharpness is the mean of several draws, with Student's interval.

Source: Keskar et al. 2016 (arXiv 1609.04836), metric 2.1; the boxes: ``boxes.py``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.stats import t

from batchscale.comm.shared.mapping import free_bytes
from batchscale.errors import UsageError
from batchscale.measure.sharpness.boxes import Box, Form
from batchscale.measure.sharpness.directions import Directions
from batchscale.measure.sharpness.maximum import Function, Maximum, Vector, maximum
from batchscale.measure.stated import watched

if TYPE_CHECKING:
    from batchscale.measure.objective import Objective

_DIRECTION_BYTES = 4  # of a weight in a direction
_SEARCH_BYTES = 8 * 32  # of a weight in L-BFGS-B: ten pairs of vectors, and a dozen of its own


@dataclass(frozen=True)
class Searched:
    """What is searched for maxima.

    Attributes:
        epsilons: sizes of the boxes.
        forms: of the boxes.
        full: the full space, too.
        subspace: p, the dimensions of random subspaces; 0 for none.
        repeats: subspaces that are drawn.
        iterations: of L-BFGS-B, at most.
        level: of the interval over subspaces.
        plain: L-BFGS-B's variables and function as they stand, not scaled to the box.
        first: number of the first subspace that is drawn.
    """

    epsilons: Sequence[float]
    forms: Sequence[Form]
    full: bool
    subspace: int
    repeats: int
    iterations: int
    level: float
    plain: bool = False
    first: int = 0

    @property
    def draws(self) -> list[int | None]:
        """None for the full space, numbers for subspaces."""
        return [
            *([None] if self.full else []),
            *(range(self.first, self.first + self.repeats) if self.subspace else []),
        ]


@dataclass(frozen=True)
class Sharpness:
    """One number of sharpness.

    Attributes:
        form: of the box.
        subspace: p; None for the full space.
        epsilon: size of the box.
        searches: one, or one a subspace.
        level: of the interval.
    """

    form: Form
    subspace: int | None
    epsilon: float
    searches: tuple[Maximum, ...]
    level: float

    @property
    def values(self) -> list[float]:
        """In percent, of every search."""
        return [100 * (search.highest - search.start) / (1 + search.start) for search in self.searches]

    @property
    def value(self) -> float:
        """Their mean."""
        return float(np.mean(self.values))

    @property
    def interval(self) -> tuple[float, float] | None:
        """Of the mean over all subspaces; None where fewer than two were searched."""
        if len(self.searches) < 2:
            return None
        spread = float(np.std(self.values, ddof=1)) / math.sqrt(len(self.searches))
        reach = float(t.ppf((1 + self.level) / 2, len(self.searches) - 1)) * spread
        return max(self.value - reach, 0.0), self.value + reach

    @property
    def limited(self) -> int:
        """Searches that ended by the limit of iterations."""
        return sum(search.limited for search in self.searches)


class LossAround:
    """The loss of an objective as a function of coordinates in a box around its weights.

    Args:
        objective: f; its weights are moved, and put back by the caller.

    Raises:
        UsageError: f(x) is not finite, or not above -1.
    """

    def __init__(self, objective: Objective) -> None:
        self._objective = objective
        self.weights: Vector = objective.vector().double().cpu().numpy()
        self._start = self._evaluated()
        if not -1 < self._start[0] < math.inf:
            raise UsageError(
                f"loss {self._start[0]:g} at these weights: must be a number above -1, for sharpness divides by "
                f"1 + f(x); measure another step"
            )

    def within(self, box: Box, setting: str) -> Function:
        """y -> (f(x + A y), its gradient).

        Args:
            box: around the weights.
            setting: that a loss without a value is due to.
        """

        def function(coordinates: Vector) -> tuple[float, Vector]:
            loss, gradient = self._start  # asked for in every search, and the same in all
            if coordinates.any():
                self._objective.assign(torch.from_numpy(box.point(coordinates)))
                loss, gradient = self._evaluated()
            if not math.isfinite(loss):
                raise UsageError(f"{setting}: the loss is not finite in the box of this size; lower it")
            return loss, box.pulled(gradient)

        return function

    def _evaluated(self) -> tuple[float, Vector]:
        loss, gradient = self._objective.gradient()
        return loss, gradient.double().cpu().numpy()


def check_room(searched: Searched, size: int) -> None:
    """Raise where what is to be searched cannot be had.

    Args:
        searched: what is to be.
        size: weights of the net.

    Raises:
        UsageError: a subspace of more dimensions than the net has weights, or too little memory.
    """
    if searched.subspace > size:
        raise UsageError(
            f"--subspace={searched.subspace}: must not exceed the {size} trained weights of the net; lower it, or use "
            f"--space full"
        )
    free = free_bytes()
    for needed, setting, words, way_out in (
        (
            _SEARCH_BYTES * size * searched.full,
            "--space=full",
            "a search over {} weights needs",
            "use --space subspace",
        ),
        (
            _DIRECTION_BYTES * size * searched.subspace,
            f"--subspace={searched.subspace}",
            "directions of {} weights need",
            "lower it, or use --space full",
        ),
    ):
        if free is not None and needed > free:
            gigabytes = f"{needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free"
            raise UsageError(f"{setting}: {words.format(size)} {gigabytes}; {way_out}")


def sharpness(objective: Objective, searched: Searched, words: str = "sharpness") -> list[Sharpness]:
    """Every number of sharpness around an objective's weights, which stay as they are.

    Args:
        objective: f.
        searched: where, and how.
        words: for the lines on standard error, before how far it is.

    Returns:
        First those of the full space; in each space form by form, and there the epsilons in their order.

    Raises:
        UsageError: a subspace cannot be had, or the loss is not finite in a box.
    """
    check_room(searched, objective.size)
    searches: dict[tuple[Form, int | None, float], list[Maximum]] = {}
    each = range(len(searched.draws) * len(searched.forms) * len(searched.epsilons))
    progress = watched(each, words, objective.world.rank == 0)
    with objective.at(objective.vector()):
        loss = LossAround(objective)
        for draw in searched.draws:
            for names, search in _maxima(loss, searched, draw, progress):
                searches.setdefault(names, []).append(search)
    return [Sharpness(*names, tuple(maxima), searched.level) for names, maxima in searches.items()]


def _maxima(
    loss: LossAround, searched: Searched, draw: int | None, progress: Iterator[int]
) -> Iterator[tuple[tuple[Form, int | None, float], Maximum]]:
    """((form, dimensions, epsilon), maximum) of the full space, or of one subspace, whose directions go with it."""
    directions = None if draw is None else Directions(len(loss.weights), searched.subspace, draw)
    for form in searched.forms:
        box = Box(form, loss.weights, directions)
        for epsilon in searched.epsilons:
            next(progress)
            function, bounds = loss.within(box, f"--epsilon={epsilon:g}"), epsilon * box.sides
            search = maximum(function, bounds, searched.iterations, searched.plain)
            yield (form, None if draw is None else searched.subspace, epsilon), search
