"""Riders: what is summed over all workers beside the gradient, in the gradient's own reduction.

A rider has a place in the flat buffer: real numbers, summed as gradients are (exact mode: free of order), and whole
numbers. It is asked three times a step:

    begin(sums)               on every process, before its first pass: what a process brings, such as a request to stop
    fill(sums, forward_pass)  after each forward pass: what its workers bring, such as the loss
    update(sums, minibatch)   after the sum, where all that decides is finite, before the optimizer's update

A rider that looks at gradients says in which steps (``apart``); there each pass's stands alone, and it is asked more:

    passed(sums, gradient)    after each backward pass: the gradient of its examples
    summed(sums, gradient)    after the sum, as ``update``: the gradient of the whole minibatch

And told is

    answer                    the numbers that the loop is told, where the rider ``tells``

A number that is not finite ends the run where its rider ``decides``, as the loss does. A measure does not: what is not
finite of it is taken out of the sum (exact mode would repeat no step that holds such), counted, and told as NaN.
A new number of the step is one more rider in the list; neither the step nor the loop knows its name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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
        expected: ``whole`` after the sum, as far as the host goes by what it expects; [] where it asks.
    """

    real: torch.Tensor
    whole: torch.Tensor
    expected: list[float] = field(default_factory=list)

    def on_host(self) -> list[float]:
        """``whole`` after the sum, in ``update`` of a rider that ``expects``: as read, or as expected."""
        return self.expected if self.expected or not len(self.whole) else self.whole.tolist()


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


@dataclass(frozen=True)
class PartGradient:
    """The gradient of a pass, or of the whole minibatch, before the update.

    Attributes:
        values: flat, (all weights that are trained,): the gradient of its examples' losses, divided by kn; a view that
            the next pass changes.
        examples: of the pass, or kn.
        scale: that ``values`` are to be divided by: fp16's, else 1.
    """

    values: torch.Tensor
    examples: int
    scale: float = 1.0


class Rider:
    """What is summed beside the gradient; one of these by name rides in a run.

    Attributes:
        name: of its numbers.
        lengths: of its pieces of real numbers; exact mode scales each piece by itself.
        whole_numbers: how many of these.
        tells: whether the loop is told the sums.
        decides: whether a step is undone where a number of it is not finite, as where a gradient is not.
        expects: whether its ``update`` needs its whole numbers on the host, which mostly are those of the step before.
    """

    name: str
    lengths: Sequence[int] = ()
    whole_numbers: int = 0
    tells: bool = True
    decides: bool = False
    expects: bool = False

    def begin(self, sums: Sums) -> None:
        """What this process brings, whatever its passes; called again where a step is repeated."""

    def fill(self, sums: Sums, forward_pass: ForwardPass) -> None:
        """Add what the workers of this pass bring."""

    def update(self, sums: Sums, minibatch: Minibatch) -> None:
        """Use the sum over all k workers; without effect where a gradient, or a sum that decides, is not finite.

        Then it is not called; on a device, whose host learns of it later, what it changes is put back.
        """

    def apart(self, step: int) -> bool:
        """Whether the gradient of each pass is wanted in this step (0 is the first); the same on all processes."""
        return False

    def passed(self, sums: Sums, gradient: PartGradient) -> None:
        """Add what the gradient of a pass brings, in a step that is ``apart``."""

    def summed(self, sums: Sums, gradient: PartGradient) -> None:
        """Note, on every process alike, what the whole gradient says; where ``update`` is called, before it."""


@dataclass(frozen=True)
class _Place:
    """A rider, its sums, and of a measure how often something of it was not finite, (1,); (0,) where it decides."""

    rider: Rider
    sums: Sums
    lost: torch.Tensor

    def take_out(self) -> None:
        """Take what is not finite of a measure out of the sum."""
        for part in (self.sums.real, self.sums.whole):
            unfit = ~part.isfinite()
            self.lost.add_(unfit.any())
            part.masked_fill_(unfit, 0.0)

    def mark(self) -> None:
        """After the sum: a measure of which something was taken out is NaN."""
        for part in (self.sums.real, self.sums.whole):
            part.masked_fill_(self.lost > 0, float("nan"))


class Riders:
    """The riders of a run, in the order of their places: measures first, then those that decide.

    Args:
        riders: each with a name of its own.

    Attributes:
        members: the riders.
    """

    def __init__(self, riders: Sequence[Rider]) -> None:
        names = [rider.name for rider in riders]
        if len(set(names)) < len(names):
            raise ValueError(f"two riders of one name among {', '.join(names)}")
        self.members = tuple(sorted(riders, key=lambda rider: rider.decides))
        self._places: list[_Place] = []
        self._beginning: list[_Place] = []
        self._filling: list[_Place] = []
        self._updating: list[_Place] = []
        self._parting: list[_Place] = []
        self._measures: list[_Place] = []
        self._told: list[torch.Tensor] = []
        self._told_places: dict[str, slice] = {}
        self._judged = slice(sum(sum(rider.lengths) for rider in riders if not rider.decides), None)

    @property
    def extras(self) -> dict[str, Sequence[int]]:
        """For an aggregator: name -> lengths of real numbers."""
        return {rider.name: rider.lengths for rider in self.members if rider.lengths}

    @property
    def counts(self) -> tuple[str, ...]:
        """For an aggregator: every name as often as it has whole numbers."""
        whole = [rider.name for rider in self.members for _ in range(rider.whole_numbers)]
        return (*whole, *(_lost(rider) for rider in self.members if not rider.decides))

    def board(self, flat: FlatGradients) -> None:
        """Take the places that an aggregator has for them."""
        nothing = flat.buffer[:0]
        self._places = [
            _Place(
                rider,
                Sums(flat.extras.get(rider.name, nothing), flat.counts.get(rider.name, nothing)),
                flat.counts.get(_lost(rider), nothing),
            )
            for rider in self.members
        ]
        # Looked up once: a step of a small net lasts a millisecond.
        self._beginning = [place for place in self._places if type(place.rider).begin is not Rider.begin]
        self._filling = [place for place in self._places if type(place.rider).fill is not Rider.fill]
        self._updating = [place for place in self._places if type(place.rider).update is not Rider.update]
        self._parting = [place for place in self._places if type(place.rider).apart is not Rider.apart]
        self._measures = [place for place in self._places if not place.rider.decides]
        self._tell()

    def _tell(self) -> None:
        """Where the numbers of the riders that tell lie in the answer."""
        start = 0
        for place in self._places:
            if place.rider.tells:
                tensors = [part for part in (place.sums.real, place.sums.whole) if len(part)]
                length = sum(len(part) for part in tensors)
                self._told_places[place.rider.name] = slice(start, start + length)
                self._told += tensors
                start += length

    def begin(self) -> None:
        """See ``Rider.begin``."""
        for place in self._beginning:
            place.rider.begin(place.sums)
        for place in self._measures:
            place.take_out()

    def fill(self, forward_pass: ForwardPass) -> None:
        """See ``Rider.fill``."""
        for place in self._filling:
            place.rider.fill(place.sums, forward_pass)
        for place in self._measures:
            place.take_out()

    def finite(self, buffer: torch.Tensor) -> torch.Tensor:
        """After the sum: whether all gradients, and all riders that decide, are finite, ().

        Args:
            buffer: of the aggregator; the real numbers of the measures are its beginning.
        """
        # Before whole numbers of measures are marked. Both ends are nan where a number is: one pass over the buffer.
        finite = torch.stack(buffer[self._judged].aminmax()).isfinite().all()
        for place in self._measures:
            place.mark()
        return finite

    @property
    def expecting(self) -> list[Sums]:
        """The sums of the riders that expect."""
        return [place.sums for place in self._places if place.rider.expects and len(place.sums.whole)]

    def update(self, minibatch: Minibatch) -> None:
        """See ``Rider.update``."""
        for place in self._updating:
            place.rider.update(place.sums, minibatch)

    def apart(self, step: int) -> bool:
        """Whether some rider wants each pass's gradient alone in this step."""
        return any(place.rider.apart(step) for place in self._parting)

    def passed(self, step: int, gradient: PartGradient) -> None:
        """See ``Rider.passed``."""
        for place in self._parting:
            if place.rider.apart(step):
                place.rider.passed(place.sums, gradient)
        for place in self._measures:
            place.take_out()

    def summed(self, step: int, gradient: PartGradient) -> None:
        """See ``Rider.summed``."""
        for place in self._parting:
            if place.rider.apart(step):
                place.rider.summed(place.sums, gradient)

    def answer(self) -> tuple[torch.Tensor, dict[str, slice]]:
        """The numbers of all riders that tell, in one tensor of its own, and where each rider's lie in it."""
        return torch.cat(self._told), self._told_places


def _lost(rider: Rider) -> str:
    """The name of the whole number that says how often something of a measure was not finite."""
    return f"{rider.name}: not finite"


def numbers(values: Sequence[float], places: Mapping[str, slice]) -> dict[str, tuple[float, ...]]:
    """Those of every rider that tells, of a row that begins with ``Riders.answer``; each is exact."""
    return {name: tuple(values[place]) for name, place in places.items()}
