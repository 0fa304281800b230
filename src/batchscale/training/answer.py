"""What is known after a step, and the answer that brings it: a row of numbers, which a device may still be filling."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from batchscale.aggregate.riders import numbers

Row = Callable[[], list[float]]
"""Waits for a row of numbers, and gives them."""


@dataclass(frozen=True)
class StepValues:
    """What all processes know after a step.

    Attributes:
        finite: the loss and every gradient; else the weights are as they were.
        recovers: not finite, but a smaller loss scale may be.
        numbers: of every rider that tells, summed over all k workers, by its name.
        settled: False where the device did not take an update that the host had launched, which it is to take back.
        facts: what the host expects, as the device found it; [] where it has asked.
    """

    finite: bool
    recovers: bool
    numbers: dict[str, tuple[float, ...]]
    settled: bool = True
    facts: Sequence[float] = ()

    @property
    def trained(self) -> bool:
        """Whether the run goes on after it; else it diverged, or the host has not settled it yet."""
        return self.settled and (self.finite or self.recovers)


@dataclass(frozen=True)
class Snapshot:
    """What lies on the host, or changes before the update, as it was before a step.

    Attributes:
        host: live tensors, and copies.
        sums: of the aggregator, by name.
    """

    host: list[tuple[torch.Tensor, torch.Tensor]]
    sums: dict[str, torch.Tensor]


@dataclass(frozen=True)
class StepAnswer:
    """A step's values, not yet read: a device may still be computing them.

    Attributes:
        snapshot: before the step; None where the host has asked.
    """

    _row: Row
    _places: Mapping[str, slice]
    _finite: bool
    _recovers: bool
    snapshot: Snapshot | None = None

    def read(self) -> StepValues:
        """The values; the one place where the loop waits for a step."""
        row = self._row()
        values = numbers(row, self._places)
        if self.snapshot is None:
            return StepValues(self._finite, self._recovers, values)
        end = max((place.stop for place in self._places.values()), default=0)
        finite, shut, *facts = row[end:]
        return StepValues(bool(finite), False, values, not shut, facts)
