"""Riders: what is summed over all workers beside the gradient, in the gradient's own reduction.

A rider has a place in the flat buffer: real numbers, summed as gradients are (exact mode: free of order), and whole
numbers. It is asked four times a step:

    begin(sums)               on every process, before its first pass: what a process brings, such as a request to stop
    fill(sums, forward_pass)  after each forward pass: what its workers bring, such as the loss
    update(sums, minibatch)   after the sum, where all of it is finite, before the optimizer's update
    answer                    the numbers that the loop is told, where the rider ``tells``

A new number of the step is one more rider in the list; neither the step nor the loop knows its name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from batchscale.aggregate.flat import FlatGradients
from batchscale.minibatch import Minibatch


@dataclass(frozen=True)
class Sums:
    """A rider's place in the buffer.

    Attributes:
        real: (sum of ``Rider.lengths``,), of the parameters' type.
        whole: (``Rider.whole_numbers``,), of the same type: exact up to 2^24 in float32.
    """

    real: torch.Tensor
    whole: torch.Tensor


@dataclass(frozen=True)
class ForwardPass:
    """One pass of whole workers, forward done and backward to come.

    Attributes:
        step: of the run.
        worker, workers: the first of its workers, and how many.
        minibatch: k and n of the step.
        loss: of the pass, summed over its examples and divided by kn, without its graph.
        outputs, targets: of its examples, as the task gives and takes them.
    """

    step: int
    worker: int
    workers: int
    minibatch: Minibatch
    loss: torch.Tensor
    outputs: Any
    targets: Any


class Rider:
    """What is summed beside the gradient; one of these by name rides in a run.

    Attributes:
        name: of its numbers.
        lengths: of its pieces of real numbers; exact mode scales each piece by itself.
        whole_numbers: how many of these.
        tells: whether the loop is told the sums.
    """

    name: str
    lengths: Sequence[int] = ()
    whole_numbers: int = 0
    tells: bool = True

    def begin(self, sums: Sums) -> None:
        """What this process brings, whatever its passes; called again where a step is repeated."""

    def fill(self, sums: Sums, forward_pass: ForwardPass) -> None:
        """Add what the workers of this pass bring."""

    def update(self, sums: Sums, minibatch: Minibatch) -> None:
        """Use the sum over all k workers; not called where a sum or a gradient is not finite."""


class Riders:
    """The riders of a run, in the order of their places.

    Args:
        riders: each with a name of its own.

    Attributes:
        members: the riders.
    """

    def __init__(self, riders: Sequence[Rider]) -> None:
        names = [rider.name for rider in riders]
        if len(set(names)) < len(names):
            raise ValueError(f"two riders of one name among {', '.join(names)}")
        self.members = tuple(riders)
        self._places: list[tuple[Rider, Sums]] = []

    @property
    def extras(self) -> dict[str, Sequence[int]]:
        """For an aggregator: name -> lengths of real numbers."""
        return {rider.name: rider.lengths for rider in self.members if rider.lengths}

    @property
    def counts(self) -> tuple[str, ...]:
        """For an aggregator: every name as often as it has whole numbers."""
        return tuple(rider.name for rider in self.members for _ in range(rider.whole_numbers))

    def board(self, flat: FlatGradients) -> None:
        """Take the places that an aggregator has for them."""
        nothing = flat.buffer[:0]
        self._places = [
            (rider, Sums(flat.extras.get(rider.name, nothing), flat.counts.get(rider.name, nothing)))
            for rider in self.members
        ]

    def begin(self) -> None:
        """See ``Rider.begin``."""
        for rider, sums in self._places:
            rider.begin(sums)

    def fill(self, forward_pass: ForwardPass) -> None:
        """See ``Rider.fill``."""
        for rider, sums in self._places:
            rider.fill(sums, forward_pass)

    def update(self, minibatch: Minibatch) -> None:
        """See ``Rider.update``."""
        for rider, sums in self._places:
            rider.update(sums, minibatch)

    def answer(self) -> tuple[torch.Tensor, dict[str, slice]]:
        """The numbers of all riders that tell, in one tensor of its own, and where each rider's lie in it."""
        tensors, places, start = [], {}, 0
        for rider, sums in self._telling():
            length = len(sums.real) + len(sums.whole)
            places[rider.name] = slice(start, start + length)
            tensors += [sums.real, sums.whole]
            start += length
        return torch.cat(tensors), places

    def _telling(self) -> Iterator[tuple[Rider, Sums]]:
        return ((rider, sums) for rider, sums in self._places if rider.tells)


def numbers(answer: torch.Tensor, places: Mapping[str, slice]) -> dict[str, tuple[float, ...]]:
    """``Riders.answer`` as numbers of Python, each exact; on a device this waits for the step."""
    values = answer.tolist()
    return {name: tuple(values[place]) for name, place in places.items()}
