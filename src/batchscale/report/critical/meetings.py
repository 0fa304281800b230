"""Whether two ways agree: like beside like, and the size of what is between them.

Two intervals of 90 % that do not meet lie apart beyond doubt; that they meet shows no more than that nothing was told
apart. Numbers over a whole run are set beside numbers over a whole run, and those at a checkpoint beside those at it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

from batchscale.report.critical.readings import CriticalReading

Verdict = Literal["disagree", "meet", "not told"]


@dataclass(frozen=True)
class Meeting:
    """Two readings of different ways at one place.

    Args:
        first, second: the readings.
    """

    first: CriticalReading
    second: CriticalReading

    @property
    def verdict(self) -> Verdict:
        """disagree: their intervals do not meet; not told: one has no bound that could show it."""
        if self._gap(self.first, self.second) > 1 or self._gap(self.second, self.first) > 1:
            return "disagree"
        return "meet" if self.first.bounded and self.second.bounded else "not told"

    @property
    def ratio(self) -> float | None:
        """The first over the second; None where one is not resolved."""
        if not self.first.minibatch or not self.second.minibatch:
            return None
        return self.first.minibatch / self.second.minibatch

    @property
    def least_ratio(self) -> float | None:
        """How far apart the intervals' near ends lie, above 1; None where they meet."""
        gap = max(self._gap(self.first, self.second), self._gap(self.second, self.first))
        return gap if gap > 1 else None

    @staticmethod
    def _gap(lower: CriticalReading, upper: CriticalReading) -> float:
        """The upper one's low end over the lower one's high end; 0 where either has no such bound."""
        if lower.high is None or upper.low is None or upper.low <= 0:
            return 0.0
        return upper.low / lower.high if lower.high > 0 else math.inf

    @property
    def where(self) -> str:
        """At which place of the run."""
        return "over the run" if self.first.seen is None else f"after {self.first.seen:,.0f} examples"

    @property
    def text(self) -> str:
        """As in a sentence."""
        names = f"{self.first.name} and {self.second.name}"
        if self.verdict == "meet":
            return f"{names} are not told apart {self.where}"
        if self.verdict == "not told":
            return f"{names} cannot be compared {self.where}: an interval is missing"
        return f"{names} disagree {self.where}{self.size}"

    @property
    def size(self) -> str:
        """Of a disagreement, and which way is above."""
        larger = self.first if self._gap(self.second, self.first) > 1 else self.second
        gap = self.least_ratio or math.inf
        least = f", by {gap:.3g} times at least" if math.isfinite(gap) else ""
        return f"{least} ({larger.name} above)"

    def as_json(self) -> dict[str, Any]:
        """Plain JSON."""
        gap = self.least_ratio
        return {
            "ways": [self.first.name, self.second.name],
            "examples_seen": self.first.seen,
            "verdict": self.verdict,
            "ratio": self.ratio,
            "least_ratio": gap if gap is None or math.isfinite(gap) else None,
        }


def meetings(readings: Sequence[CriticalReading]) -> Iterator[Meeting]:
    """All pairs of different kinds of ways at one place: over the run first, then along it.

    Args:
        readings: in any order.
    """
    places = sorted({reading.seen for reading in readings}, key=lambda seen: -1.0 if seen is None else seen)
    for place in places:
        together = [reading for reading in readings if reading.seen == place]
        for first, second in combinations(together, 2):
            if first.kind != second.kind:
                yield Meeting(first, second)


def trend(readings: Sequence[CriticalReading]) -> str | None:
    """Whether readings of one way rise or fall along a run, from the first to the last; None of fewer than two.

    Args:
        readings: with ``seen``, rising.
    """
    if len(readings) < 2:
        return None
    first, last = readings[0], readings[-1]
    if Meeting(first, last).verdict != "disagree":
        return f"{first.name}: no trend is shown ({first.text}, then {last.text})"
    rises = Meeting._gap(first, last) > 1
    return f"{first.name}: {'rises' if rises else 'falls'} from {first.text} to {last.text}"
