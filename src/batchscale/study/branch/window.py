"""The window of a study of branches: how long branches train, where they are evaluated, how their weights are averaged.

points: floor(i S / 8) f_max kn, i = 1 .. 8,   S = W / (f_max kn) steps of the largest factor
averaged weights: a half-life of W / 16 examples, so at factor f a decay of 2^(-f kn / (W / 16)) a step
"""

from __future__ import annotations

from dataclasses import dataclass

FEWEST_STEPS = 32
"""Of the largest factor in a window: over fewer the branches' transient is what is measured."""
_USUAL_STEPS = 64
_POINTS = 8
_HALF_LIVES = 16


def usual_window(largest: int) -> int:
    """The window where none is asked for.

    Args:
        largest: f_max kn, examples.
    """
    return _USUAL_STEPS * largest


@dataclass(frozen=True)
class Window:
    """What all branches share.

    Args:
        minibatch: kn of the trunk.
        factors: rising, 1 first.
        examples: W.
    """

    minibatch: int
    factors: tuple[int, ...]
    examples: int

    @property
    def largest(self) -> int:
        """f_max kn."""
        return self.factors[-1] * self.minibatch

    @property
    def points(self) -> tuple[int, ...]:
        """Examples after which every branch is evaluated: multiples of every factor's minibatch, the last one W."""
        steps = self.examples // self.largest
        marks = dict.fromkeys(i * steps // _POINTS for i in range(1, _POINTS + 1))
        return tuple(mark * self.largest for mark in marks if mark)

    @property
    def half(self) -> int | None:
        """The point at half of the window, or just before it; None where there is none."""
        return max((point for point in self.points if 2 * point <= self.examples), default=None)

    @property
    def half_life(self) -> float:
        """Of the averaged weights, in examples."""
        return self.examples / _HALF_LIVES

    def decay(self, examples: float) -> float:
        """Of the averaged weights, over so many examples."""
        return float(2.0 ** (-examples / self.half_life))
