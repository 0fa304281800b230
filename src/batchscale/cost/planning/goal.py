"""Epochs to the goal against the minibatch, with what is uncertain in them as draws.

E(B) = E_0 (1 + B / B_crit) / (1 + B_0 / B_crit)

E_0: the epochs that minibatch B_0 is known to need: of a recipe its own; of a table the fit amid its minibatches.
Without B_crit nothing is known of any minibatch but B_0.

Source: McCandlish et al. 2018, section 2.3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from batchscale.cost.planning.estimate import LEVEL, normals
from batchscale.cost.ranges import CRITICAL
from batchscale.cost.speeds.series import Floats
from batchscale.errors import DataError
from batchscale.words import shown

_OPEN = math.log(1e3)
"""Of log B_crit: how far an end without a bound lies from the value, as far as any fit looks for it."""
_COLUMNS = 8
_CRITICAL, _ANCHOR = 6, 7  # the others are of the pace


@dataclass(frozen=True)
class CriticalEstimate:
    """B_crit with its interval.

    Args:
        value: examples.
        low, high: of the interval; None: no bound.
        words: where it is from.
        level: of the interval.
    """

    value: float
    low: float | None
    high: float | None
    words: str
    level: float = LEVEL

    def log_draws(self) -> Floats:
        """log B_crit (D): a normal, wider on one side than on the other where the interval is."""
        z = normals(_COLUMNS)[:, _CRITICAL]
        below = _OPEN if self.low is None else math.log(self.value / self.low)
        above = _OPEN if self.high is None else math.log(self.high / self.value)
        return np.asarray(
            math.log(self.value) + np.where(z < 0, below, above) / NormalDist().inv_cdf(0.5 + self.level / 2) * z
        )


@dataclass(frozen=True)
class EpochGoal:
    """What the epochs are known of.

    Args:
        words: what is reached, for sentences.
        minibatch: B_0, examples.
        epochs: E_0.
        spread: of log E_0, a standard deviation; 0: by definition.
        critical: None: nothing is known of other minibatches.
        studied: the smallest and the largest minibatch behind B_crit; None: not said.
        workload: of the table whose epochs these are; "": they are not from one.
    """

    words: str
    minibatch: float
    epochs: float
    spread: float = 0.0
    critical: CriticalEstimate | None = None
    studied: tuple[float, float] | None = None
    workload: str = ""

    def knows(self, minibatch: int) -> bool:
        """Whether anything is known of this minibatch."""
        return self.critical is not None or minibatch == self.minibatch

    def epochs_at(self, minibatch: float) -> float:
        """E, by the values alone."""
        if self.critical is None:
            return self.epochs
        return self.epochs * (1 + minibatch / self.critical.value) / (1 + self.minibatch / self.critical.value)

    def log_epochs(self, minibatches: Floats) -> Floats:
        """log E of each minibatch (m), as draws (D, m)."""
        level = math.log(self.epochs) + self.spread * normals(_COLUMNS)[:, _ANCHOR]
        if self.critical is None:
            return np.repeat(level[:, None], len(minibatches), axis=1)
        log_critical = self.critical.log_draws()[:, None]
        bend = np.logaddexp(0, np.log(minibatches) - log_critical)
        return np.asarray(level[:, None] + bend - np.logaddexp(0, math.log(self.minibatch) - log_critical))


def critical_by_hand(text: str) -> CriticalEstimate:
    """B_crit from words: B, or B,LOW,HIGH.

    Raises:
        DataError: it is none.
    """
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    value, low, high = numbers if len(numbers) == 3 else numbers * 3 if len(numbers) == 1 else (0.0, 0.0, 0.0)
    if not (CRITICAL.holds(low) and CRITICAL.holds(high) and low <= value <= high):
        raise DataError(
            f"--critical={shown(text)}: must be the critical minibatch in examples ({CRITICAL.span}), alone or with "
            f"the ends of its 90 % interval, such as 8000,5000,13000"
        )
    return CriticalEstimate(value, low, high, "--critical")
