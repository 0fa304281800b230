"""Minibatches carried to a device: packed into a ring of pinned slots, one pass at a time, the next one ahead.

slot    host memory of one step, written by the feed's threads: only after the copies out of it are done
pass    one copy of bytes, begun when the pass before it is taken, and made into a batch when it is taken itself

So a device holds the bytes of two passes, and the floats of those passes alone that somebody still uses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, Generic, TypeVar, overload

import torch

from batchscale.data.feed.copies import Copies, Copy
from batchscale.data.feed.packing import Packing

T = TypeVar("T", covariant=True)


@dataclass
class _Slot:
    """Host memory, and the events of the copies out of it; not these themselves, which hold memory of the device."""

    memory: torch.Tensor
    events: list[Any] = field(default_factory=list)


class OnDemand(Sequence[T], Generic[T]):
    """Some passes of a step, each made when it is taken.

    Args:
        make: a pass from its number.
        numbers: of these passes.
    """

    def __init__(self, make: Callable[[int], T], numbers: range) -> None:
        self._make, self._numbers = make, numbers

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, number: int) -> T: ...
    @overload
    def __getitem__(self, number: slice) -> Sequence[T]: ...
    def __getitem__(self, number: int | slice) -> T | Sequence[T]:
        if isinstance(number, slice):
            return OnDemand(self._make, self._numbers[number])
        return self._make(self._numbers[number])


class Carried(Sequence[T], Generic[T]):
    """The passes of a step, each made when it is taken: carried to the device, and there made into a batch.

    Taken twice, it is carried twice: a step that is repeated needs no more memory than another one.

    Attributes:
        following: what comes after the last pass, where it is ready.
    """

    def __init__(
        self,
        slot: _Slot,
        packings: Sequence[Packing],
        copies: Copies,
        finish: Callable[[Any], T],
        give_back: Callable[[_Slot], None],
    ) -> None:
        self._slot: _Slot | None = slot
        self._packings, self._copies, self._finish, self._give_back = packings, copies, finish, give_back
        self._ahead: dict[int, Copy] = {}
        self.following: Callable[[], Carried[T] | None] = lambda: None

    def __len__(self) -> int:
        return len(self._packings)

    @overload
    def __getitem__(self, number: int) -> T: ...
    @overload
    def __getitem__(self, number: slice) -> Sequence[T]: ...
    def __getitem__(self, number: int | slice) -> T | Sequence[T]:
        if isinstance(number, slice):
            return OnDemand(self.__getitem__, range(len(self))[number])
        number = range(len(self))[number]
        copy = self._ahead.pop(number, None) or self._begin(number)
        self._begin_next(number + 1)
        self._copies.join(copy)
        return self._finish(self._packings[number].unpack(copy.bytes))

    def _begin_next(self, number: int) -> None:
        if number < len(self):
            self.begin(number)
        elif (following := self.following()) is not None:
            following.begin(0)

    def begin(self, number: int) -> None:
        """Begin to carry a pass, so that it is there when it is taken."""
        if self._slot is not None and number not in self._ahead:
            self._ahead[number] = self._begin(number)

    def _begin(self, number: int) -> Copy:
        if self._slot is None:
            raise RuntimeError("the passes of this step were given back: the feed was asked for another one")
        start = sum(packing.num_bytes for packing in self._packings[:number])
        copy = self._copies.begin(self._slot.memory[start : start + self._packings[number].num_bytes])
        self._slot.events.append(copy.event)
        return copy

    def close(self) -> None:
        """Give the slot back: no pass is taken any more."""
        if self._slot is not None:
            slot, self._slot, self._ahead = self._slot, None, {}
            self._give_back(slot)


class Carrier(Generic[T]):
    """The ring of slots.

    Args:
        copies: of the device.
        slots: steps whose passes may be ready or in use at once.
        finish: makes a batch of a pass's structure, on the device.
    """

    def __init__(self, copies: Copies, slots: int, finish: Callable[[Any], T]) -> None:
        self._copies, self._finish = copies, finish
        self._free: SimpleQueue[_Slot] = SimpleQueue()
        for _ in range(slots):
            self._free.put(_Slot(torch.empty(0, dtype=torch.uint8)))

    def load(self, passes: Sequence[Any]) -> Carried[T]:
        """Lay the passes of a step into the next free slot; waits until it may be written."""
        packings = [Packing.of(structure) for structure in passes]
        slot = self._free.get()
        try:
            self._fill(slot, packings, passes)
        except BaseException:
            self._free.put(slot)
            raise
        return Carried(slot, packings, self._copies, self._finish, self._free.put)

    def _fill(self, slot: _Slot, packings: Sequence[Packing], passes: Sequence[Any]) -> None:
        for event in slot.events:
            self._copies.wait(event)
        slot.events.clear()
        num_bytes = sum(packing.num_bytes for packing in packings)
        if len(slot.memory) < num_bytes:
            slot.memory = self._copies.memory(num_bytes)
        start = 0
        for packing, structure in zip(packings, passes, strict=True):
            packing.pack(structure, slot.memory[start : start + packing.num_bytes])
            start += packing.num_bytes
