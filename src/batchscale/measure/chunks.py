"""Sums over the chunks of a stated set, shared by W processes: the same bits for every W.

    s = sum over parts p of (sum over chunks c of p of s_c),   in float64, in this order

The chunks lie in at most 16 parts, whatever W is; a part is one process's, and the parts' sums are added in order.
Where a chunk does not fit into memory on some process, all halve their chunks and begin the sum again. What one of
them cannot compute at all is an error on all, for none may wait for sums that do not come.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable

import torch

from batchscale.build.memory import first_line, is_out_of_memory, memory_of
from batchscale.comm import World
from batchscale.errors import UsageError
from batchscale.measure.refusals import raise_on_all

_TOO_LARGE, _REFUSED = 1, 1000  # what a process says of a part: its chunks do not fit; it cannot be computed at all
_MOST_PARTS = 16  # a part's sum is sent to all others: more would cost more, fewer leave processes without work


class ChunkSums:
    """How sums over M examples are taken.

    Args:
        count: M.
        chunk: examples of one pass.
        world: the processes that share the chunks.

    Attributes:
        chunk: of now; smaller than it was where memory did not suffice.
    """

    def __init__(self, count: int, chunk: int, world: World) -> None:
        self._count, self.chunk, self._world = count, max(min(chunk, count), 1), world
        self._refused: UsageError | None = None

    def total(self, of_chunk: Callable[[slice], torch.Tensor], length: int) -> torch.Tensor:
        """The sum of what a function makes of every chunk, float64 (length,), on every process.

        Args:
            of_chunk: examples -> (length,).
            length: of the sum.

        Raises:
            UsageError: not even one example fits into memory; or what the function raises, on every process.
        """
        while (total := self._total(of_chunk, length)) is None:
            self._halve()
        return total

    def parts(self) -> list[list[slice]]:
        """The chunks of every part."""
        starts = range(0, self._count, self.chunk)
        chunks = [slice(start, min(start + self.chunk, self._count)) for start in starts]
        count = min(_MOST_PARTS, len(chunks))
        cuts = [number * len(chunks) // count for number in range(count + 1)]
        return [chunks[first:end] for first, end in itertools.pairwise(cuts)]

    def _total(self, of_chunk: Callable[[slice], torch.Tensor], length: int) -> torch.Tensor | None:
        """The sum; None where memory did not suffice somewhere."""
        parts, size = self.parts(), self._world.size
        total = torch.zeros(length + 1, dtype=torch.float64, device=self._world.device)  # the last: what went wrong
        self._refused = None
        for first in range(0, len(parts), size):
            number = first + self._world.rank
            own = self._part(of_chunk, parts[number], length) if number < len(parts) else torch.zeros_like(total)
            for owner in range(min(size, len(parts) - first)):
                # The others' rows are zero, so their sum is the owner's row, and rounds nothing.
                row = own.clone() if owner == self._world.rank else torch.zeros_like(own)
                self._world.all_reduce(row, "all-reduce of a measure")
                total += row
            if total[-1] >= _REFUSED:
                raise_on_all(self._refused, self._world)
            if total[-1] > 0:
                return None
        return total[:-1]

    def _part(self, of_chunk: Callable[[slice], torch.Tensor], chunks: list[slice], length: int) -> torch.Tensor:
        """The sum over a part, and last 0; or zeros, and last what went wrong."""
        summed = torch.zeros(length + 1, dtype=torch.float64, device=self._world.device)
        try:
            for chunk in chunks:
                summed[:-1] += of_chunk(chunk)
        except UsageError as error:
            self._refused = error
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if self.chunk > 1:
                summed.zero_()
                summed[-1] = _TOO_LARGE
            else:
                self._refused = UsageError(
                    f"--chunk=1: not even one example fits into memory ({first_line(error)}); measure fewer parts of "
                    f"the net, or use a machine with more memory"
                )
        if self._refused is not None:
            summed.zero_()
            summed[-1] = _REFUSED
        return summed

    def _halve(self) -> None:
        memory_of(self._world.device).release()
        self.chunk = -(-self.chunk // 2)
        if self._world.rank == 0:
            print(
                f"a chunk did not fit into memory: chunks of {self.chunk} from here on (the numbers stay, to "
                f"rounding); --chunk {self.chunk} begins with these",
                file=sys.stderr,
                flush=True,
            )
