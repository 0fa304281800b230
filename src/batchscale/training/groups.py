"""Groups of workers that are normalised together though they are not one tensor of one process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from batchscale.data.feed import Batch
from batchscale.worker.lanes import Lanes
from batchscale.worker.shared_batch_norm import SharedPass, Sum, shared_part


@dataclass(frozen=True)
class WorkerGroups:
    """How a step's passes see the groups of workers.

    Attributes:
        span: g, the workers of a group.
        sums: k -> the sum over the processes that host this one's group; None where this one hosts whole groups.
        lanes: of a run whose workers have a pass each; None where a pass holds all of a group that is here.
    """

    span: int = 1
    sums: Callable[[int], Sum | None] = lambda workers: None
    lanes: Lanes | None = None

    def together(self, passes: Sequence[Batch]) -> list[Sequence[Batch]]:
        """The passes of a step, those together that run together."""
        at_once = self.span if self.lanes else 1
        return [passes[first : first + at_once] for first in range(0, len(passes), at_once)]

    def shared(self, workers: int, worker: int) -> SharedPass | None:
        """Of a pass whose first worker is ``worker``, in a step of k workers; None where it holds whole groups."""
        add = self.sums(workers)
        return shared_part(self.span, worker % self.span, add) if add else None
