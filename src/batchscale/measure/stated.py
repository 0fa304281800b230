"""The stated set that a measure covers: the first M training examples of one order, as they are without augmentation.

The order hangs on no seed and no step, so runs on the same data are measured over the same examples.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np

from batchscale.data.examples import Examples
from batchscale.randomness import key, shuffled

_MEASURED = 204  # stream: the order of the examples that a state is measured over
_LINE_SECONDS = 5.0

Item = TypeVar("Item")


def stated_set(examples: Examples, count: int) -> Examples:
    """The first ``count`` of the order."""
    return examples.select(shuffled(key(_MEASURED), np.arange(count), len(examples)))


def watched(parts: Sequence[Item], words: str, speaks: bool = True) -> Iterator[Item]:
    """The parts, one after the other, with a line on standard error every five seconds: how far, and the time left.

    Args:
        parts: of the work.
        words: of the line.
        speaks: whether this process is the one that says it.
    """
    start = told = time.monotonic()
    for number, part in enumerate(parts):
        now = time.monotonic()
        if number == 1:
            start = now  # the first part loads and compiles
        elif speaks and number and now - told >= _LINE_SECONDS:
            told, left = now, (now - start) / (number - 1) * (len(parts) - number)
            print(f"{words}: {number} of {len(parts)} parts, {left:.0f} s left", file=sys.stderr, flush=True)
        yield part
