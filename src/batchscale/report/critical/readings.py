"""What one way says of the critical minibatch: at a place of the run, or over all of it.

As the loss falls B_crit changes. At a minibatch B a stretch of dE_min examples, dS_min steps at the least, takes

dx = dE_min (1 + B / B_crit) examples,   dE_min = B_crit dS_min   so   dS_min = dx / (B_crit + B)

and over a run B_crit = E_min / S_min = (sum_i w_i b_i / (b_i + B)) / (sum_i w_i / (b_i + B)), w_i the examples of the
stretch on which b_i holds. It rises with every b_i, so the mean of all lower ends and that of all upper ends hold it,
whatever their errors have to do with one another.

Source: McCandlish et al. 2018, section 2.3 (the trade-off, which holds of each stretch; the mean is ours).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

CONFIDENCE = 0.9
"""Of all intervals, where a note does not say another one."""
Kind = Literal["steps to target", "branches", "noise scale"]


@dataclass(frozen=True)
class CriticalReading:
    """One number of one way.

    Args:
        kind: of way.
        name: of the way, such as "branches, rule sqrt".
        seen: examples that were seen before it; None: over the whole run.
        minibatch: examples; None: not resolved.
        low, high: its interval of 90 %; None: the data give no bound.
        note: what limits it.
        twice_first: of branches, where twice the examples of factor 1 are needed, in place of twice the fewest.
    """

    kind: Kind
    name: str
    seen: float | None
    minibatch: float | None
    low: float | None
    high: float | None
    note: str = ""
    twice_first: float | None = None

    @property
    def bounded(self) -> bool:
        """Whether there is a bound at all."""
        return self.low is not None or self.high is not None

    @property
    def text(self) -> str:
        """The number and its interval."""
        if self.minibatch is None:
            sides = (("above", self.low), ("below", self.high))
            bounds = " and ".join(f"{side} {short(end)}" for side, end in sides if end is not None)
            return bounds or "not resolved"
        if not self.bounded:
            return f"{short(self.minibatch)} (no interval)"
        low, high = ("no bound" if end is None else short(end) for end in (self.low, self.high))
        return f"{short(self.minibatch)} ({low} to {high})"


def short(value: float) -> str:
    """Three digits, or whole examples where these are more."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


@dataclass(frozen=True)
class LargestWithoutLoss:
    """The largest minibatch without loss after a checkpoint.

    Args:
        name: of the way.
        seen: examples.
        largest: examples; None: not told.
        worse: the smallest that is shown to be worse; None: none.
        note: what limits it.
    """

    name: str
    seen: float
    largest: float | None
    worse: float | None
    note: str


@dataclass(frozen=True)
class CriticalSource:
    """One folder.

    Args:
        folder: as named.
        kind: of way.
        recipe: its name.
        entries: of the recipe that it was measured on, under dotted names.
        minibatch: of the run, in examples.
        readings: over the run, or along it.
        no_loss: of branches.
        line: (examples seen, noise scale) of a run's lines, without intervals.
        warnings: how many stand on its own page.
        parts: what an example consists of, and how many of them; ("", 1) where none count.
    """

    folder: Path
    kind: Kind
    recipe: str
    entries: Mapping[str, str]
    minibatch: float
    readings: tuple[CriticalReading, ...]
    no_loss: tuple[LargestWithoutLoss, ...] = ()
    line: tuple[tuple[float, float | None], ...] = ()
    warnings: int = 0
    parts: tuple[str, int] = ("", 1)


def mean_over_run(readings: Sequence[CriticalReading], minibatch: float) -> CriticalReading:
    """The mean of readings along a run, as the one number over the run that they come to.

    Each holds half way to its neighbours, the first from the run's beginning, the last up to where it was read.

    Args:
        readings: of one way, with ``seen``, rising.
        minibatch: B, of the run, in examples.
    """
    places = [reading.seen or 0.0 for reading in readings]
    edges = [0.0, *((a + b) / 2 for a, b in pairwise(places)), max(places[-1], 1.0)]
    weights = [end - first for first, end in pairwise(edges)]
    value, low, high = (
        _mean([getattr(reading, name) for reading in readings], weights, minibatch)
        for name in ("minibatch", "low", "high")
    )
    if len(readings) == 1:
        note = f"one checkpoint, after {places[0]:,.0f} examples: no mean"
    else:
        note = f"mean of {len(readings)} checkpoints, {places[0]:,.0f} to {places[-1]:,.0f} examples"
    notes = dict.fromkeys([note, *(reading.note for reading in readings if reading.note)])
    return CriticalReading(readings[0].kind, readings[0].name, None, value, low, high, "; ".join(notes))


def _mean(values: Sequence[float | None], weights: Sequence[float], minibatch: float) -> float | None:
    """None where one is not known, or no minibatch at all (an end of zero or below it is no bound)."""
    known = [value for value in values if value is not None and value > 0]
    if len(known) < len(values):
        return None
    examples = sum(w * b / (b + minibatch) for w, b in zip(weights, known, strict=True))
    return examples / sum(w / (b + minibatch) for w, b in zip(weights, known, strict=True))
