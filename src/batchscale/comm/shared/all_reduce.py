"""All-reduce in the memory that the processes of one host share.

    sum_i = x_i^0 + x_i^1 + ... + x_i^(p-1)        process r adds up piece r and writes it to all

Three ways, by where the tensor lies and how long it is:

- small: everyone copies into a slot, and adds up all slots. One wait.
- in place: the tensor lies in a buffer of ``zeros``; process r adds up its piece of all p tensors and writes the
  sum into all p. Two waits, no copy.
- staged: any other tensor goes through slots, chunk by chunk, the next chunk copied in while the last is summed.

With a *wire* of 16 bits a tensor goes through slots in that type: each process's values are rounded into its slot,
added up in the tensor's own type, and the sum is rounded into the slots (a small one is not).

With several hosts this is the three-phase all-reduce: r's sum goes through ``between`` before it is written.

Steps: 2 (small: 1). Bytes read and written by a process: (p - 1) / p of the buffer from others and to others, in
place, as in the schedule ``direct``; small: p - 1 times the buffer read. Sums are in rank order, so all processes
hold the same bits.

Source: Goyal et al. 2017, section 4 (sums inside a server, small buffers on another path); Mellor-Crummey and
Scott 1991 for the waits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from batchscale.comm.shared.flags import ARRIVED, FINISHED, IN_FLIGHT, ROW_WORDS, Flags
from batchscale.comm.shared.mapping import Mapping
from batchscale.comm.world.world import World
from batchscale.errors import ProcessError

SMALL_BYTES = 32 << 10  # measured: at 64 KB two waits in place are faster at W = 2 (docs/log.md)
_SLOT_BYTES, _SLOTS = 512 << 10, 4  # several: a chunk is copied in while those before it are still added up
_CHUNK_BYTES = 256 << 10  # added up at once: stays in a core's cache
_LINE_BYTES = 64  # of a cache: cores that write one line in turn would wait for each other
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64)


Between = Callable[[torch.Tensor, str, torch.dtype | None], None]
"""(tensor, what, wire): tensor <- its sum over the processes of a lane."""


@dataclass
class _Piece:
    """One collective's number, its slice in every process's memory, and, where that is a slot, the sum's place."""

    number: int
    rows: list[torch.Tensor]
    into: torch.Tensor | None
    small: bool
    what: str

    @property
    def dtype(self) -> torch.dtype:
        """That sums are made in."""
        return (self.rows[0] if self.into is None else self.into).dtype

    @property
    def wire(self) -> torch.dtype | None:
        """That values are exchanged in, where it is another one."""
        return None if self.rows[0].dtype == self.dtype else self.rows[0].dtype


class Operation:
    """An all-reduce under way: ``wait()`` returns when the tensor holds the sum."""

    def __init__(self, owner: SharedMemoryAllReduce, last: int) -> None:
        self._owner, self._last = owner, last

    def wait(self) -> None:
        """Block until the sum is there; ProcessError names a rank that died, hangs, or brought another length."""
        self._owner.complete(self._last)


class SharedMemoryAllReduce:
    """All-reduce among the processes of one host.

    Args:
        world: the processes; all of them call this together.
        between: with several hosts, sums a tensor over the processes of this one's lane, one on every host (the
            first local ranks of all hosts are lane 0, ...; there are as many lanes as processes on the smallest).

    Raises:
        NoSharedMemory: the processes of some host cannot share memory.
    """

    def __init__(self, world: World, between: Between | None = None) -> None:
        self.name = "shared_memory" if len(world.hosts) == 1 else "three_phase"
        self._me, self._between = world.local_rank, between
        self._lanes = min(map(len, world.hosts))
        self._small_bytes = SMALL_BYTES if len(world.hosts) == 1 else 0  # a sum of slots knows nothing of other hosts
        self._world = world
        begin = -(-8 * ROW_WORDS // 4096) * 4096  # of the slots: on a page of its own, so no flag shares their lines
        self._memory = Mapping(world, begin + _SLOTS * _SLOT_BYTES)
        self._slots = [self._memory.rows[:, begin + i * _SLOT_BYTES :][:, :_SLOT_BYTES] for i in range(_SLOTS)]
        self._flags = Flags(world, self._memory, self.name)
        self._buffers: dict[int, torch.Tensor] = {}  # storage -> rows
        self._views: dict[tuple[int, int, torch.dtype], list[torch.Tensor]] = {}
        self._number = self._slots_used = 0
        self._slot_numbers = [0] * _SLOTS
        self._to_sum: deque[_Piece] = deque()
        self._to_copy_out: deque[_Piece] = deque()
        self._finished = 0  # every process has finished this collective, and its sum is in place

    def zeros(self, length: int, dtype: torch.dtype) -> torch.Tensor:
        """A tensor (length,) that is reduced in place; all processes call this together.

        Raises:
            NoSharedMemory: there is not enough of it, on any process.
        """
        memory = Mapping(self._world, length * dtype.itemsize)
        rows = memory.rows.view(dtype)
        self._buffers[rows.untyped_storage().data_ptr()] = rows
        return rows[self._me, :length]

    def start(self, tensor: torch.Tensor, what: str = "all-reduce", wire: torch.dtype | None = None) -> Operation:
        """Begin tensor <- sum over all processes; the same order of calls on every process.

        Args:
            tensor: (n,), contiguous.
            what: is summed, for errors.
            wire: type that the processes exchange; None for the tensor's own.
        """
        if tensor.dtype not in DTYPES or not tensor.is_contiguous():
            raise ValueError(f"all-reduce by {self.name}: takes contiguous tensors of {DTYPES}, not {tensor.dtype}")
        tensor = tensor.detach().view(-1)
        dtype = wire or tensor.dtype
        bytes_ = tensor.numel() * dtype.itemsize
        rows = None if wire else self._buffers.get(tensor.untyped_storage().data_ptr())
        if rows is not None and bytes_ > self._small_bytes:
            begin = tensor.data_ptr() - rows[self._me].data_ptr()
            key = (tensor.data_ptr(), tensor.numel(), tensor.dtype)
            if key not in self._views:  # cut once: a run sums the same slices in every step
                first = begin // tensor.element_size()
                self._views[key] = [row[first : first + tensor.numel()] for row in rows.unbind()]
            # Odd: in place. Where a peer brings a tensor of this length by slots, the two would add up other memory.
            self._issue(_Piece(0, self._views[key], None, False, what), (bytes_ << 1) + 1)
        else:
            for part in torch.split(tensor, _SLOT_BYTES // dtype.itemsize):
                self._issue_by_slot(part, bytes_ <= self._small_bytes, bytes_, what, dtype)
        return Operation(self, self._number)

    def _issue_by_slot(self, part: torch.Tensor, small: bool, bytes_: int, what: str, dtype: torch.dtype) -> None:
        slot = self._slots_used % _SLOTS
        self._slots_used += 1
        self._wait_for_all(self._slot_numbers[slot], what)  # a slower peer may still read what it held last
        key = (-slot - 1, part.numel(), dtype)  # negative: no address of a buffer
        if key not in self._views:
            self._views[key] = list(self._slots[slot].view(dtype)[:, : part.numel()].unbind())
        rows = self._views[key]
        rows[self._me].copy_(part)
        self._slot_numbers[slot] = self._number + 1
        self._issue(_Piece(0, rows, part, small, what), bytes_ << 1)

    def _issue(self, piece: _Piece, description: int) -> None:
        """Give the piece its number and say that it is there."""
        self._wait_for_all(self._number + 1 - IN_FLIGHT, piece.what)  # words for what is brought are used again
        self._number += 1
        piece.number = self._number
        # The flag last: whoever sees it also sees the data and the description, as x86-64 keeps stores in order.
        self._flags.bring(self._number, description << 3 | DTYPES.index(piece.rows[0].dtype))
        self._flags.post(ARRIVED, self._number)
        self._to_sum.append(piece)

    def _wait_for_all(self, number: int, what: str) -> None:
        """Until no process reads or writes for collective ``number`` any more."""
        self.complete(number)
        self._flags.wait(FINISHED, number, what)

    def progress(self) -> None:
        """Do what can be done without waiting, in order."""
        while self._to_sum and self._flags.there(ARRIVED, self._to_sum[0].number):
            self._sum_next()

    def complete(self, number: int) -> None:
        """Block until collective ``number`` and all before it are done."""
        if number <= self._finished:
            return
        while self._to_sum and self._to_sum[0].number <= number:
            self._flags.wait(ARRIVED, self._to_sum[0].number, self._to_sum[0].what)
            self._sum_next()
        if self._to_copy_out and self._to_copy_out[0].number <= number:
            last = [p for p in self._to_copy_out if p.number <= number][-1]  # flags only grow: one wait for all
            self._flags.wait(FINISHED, last.number, last.what)
            while self._to_copy_out and self._to_copy_out[0].number <= number:
                self._copy_out(self._to_copy_out.popleft())
        self._finished = max(self._finished, number)

    def _sum_next(self) -> None:
        piece = self._to_sum.popleft()
        self._check_alike(piece)
        if piece.small:
            assert piece.into is not None
            _add_up(piece.rows, piece.into)  # everyone all of it: nobody waits for a peer's part of the sum
        else:
            self._sum_piece(piece)
            self._to_copy_out.append(piece)
        self._flags.post(FINISHED, piece.number)

    def _sum_piece(self, piece: _Piece) -> None:
        """This process's part of the sum of all rows, written into all of them."""
        rows, lane, lanes = piece.rows, self._me, self._lanes
        if lane >= lanes:  # the smallest host has no partner for this process
            return
        length, item = rows[0].numel(), rows[0].element_size()
        line = _LINE_BYTES // item
        # Cuts at whole cache lines: no line is written by two processes.
        begin, end = (min(-(-(length * r // lanes) // line) * line, length) for r in (lane, lane + 1))
        sums = rows[0][begin:end] if piece.wire is None else torch.empty(end - begin, dtype=piece.dtype)
        if self._between is None:
            for parts, total in _chunks(rows, begin, sums):
                _add_up(parts, total)
                _spread(total, parts)
            return
        for parts, total in _chunks(rows, begin, sums):
            _add_up(parts, total)
        try:
            self._between(sums, piece.what, piece.wire)
        except ProcessError:
            self._flags.fail()  # the peers of this host wait for a flag that would never come
            raise
        for parts, total in _chunks(rows, begin, sums):
            _spread(total, parts)

    def _check_alike(self, piece: _Piece) -> None:
        brought = self._flags.brought(self._me, piece.number)
        for row in range(len(piece.rows)):
            theirs = self._flags.brought(row, piece.number)
            if theirs != brought:
                self._flags.give_up(piece.what, f"brought {_described(theirs)}, this rank {_described(brought)}", row)

    def _copy_out(self, piece: _Piece) -> None:
        if piece.into is not None:
            piece.into.copy_(piece.rows[self._me])

    def close(self) -> None:
        """Give the memory back."""
        self._flags.close()


def _described(description: int) -> str:
    dtype, bytes_ = DTYPES[description & 7], description >> 4
    return f"{bytes_ // dtype.itemsize} x {str(dtype).removeprefix('torch.')}"


def _add_up(rows: list[torch.Tensor], into: torch.Tensor) -> None:
    """into <- rows[0] + rows[1] + ..., added in the type of ``into``."""
    if len(rows) == 1 or rows[0].dtype != into.dtype:
        into.copy_(rows[0])
        for row in rows[1:]:
            into.add_(row)
        return
    # Row by row: torch.sum over the (W, n) view took 2 to 3 times as long (docs/log.md).
    torch.add(rows[0], rows[1], out=into)
    for row in rows[2:]:
        into.add_(row)


def _spread(total: torch.Tensor, rows: list[torch.Tensor]) -> None:
    """rows[0], rows[1], ... <- total, rounded once; where that has the rows' type, it is rows[0]."""
    if total.dtype != rows[0].dtype:
        rows[0].copy_(total)
    for row in rows[1:]:
        row.copy_(rows[0])


def _chunks(
    rows: list[torch.Tensor], begin: int, sums: torch.Tensor
) -> Iterator[tuple[list[torch.Tensor], torch.Tensor]]:
    """rows[:, begin:] and the place of their sums, in parts that stay in a core's cache."""
    chunk = _CHUNK_BYTES // rows[0].element_size()
    for first in range(0, len(sums), chunk):
        total = sums[first : first + chunk]
        yield [row[begin + first : begin + first + len(total)] for row in rows], total
