"""The all-reduces that are measured: algorithms, two of them in two ways; and what W processes are told."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from batchscale.comm.reducer import BUILTIN, SHARED_MEMORY

ELEMENT_BYTES = 4  # float32
KB, MB = 1 << 10, 1 << 20
SIZES = (KB, 4 * KB, 16 * KB, 64 * KB, 256 * KB, MB, 4 * MB, 16 * MB, 64 * MB, 100 * MB)

SHIPPED = "builtin_shipped"
"""The backend as torch ships it: Gloo's threads on SCHED_OTHER. ``builtin`` has them on SCHED_BATCH, as here."""

COPIED = "shared_memory_copy"
"""Shared memory on a tensor that lies elsewhere. ``shared_memory`` has it there already, as training does."""

AUTO = "auto"
"""The algorithm chosen for the size, on a tensor that lies where training's gradients do."""

COPY_ONE, COPY_ALL = "copy_one", "copy_all"
"""Not reductions: one process copies as many bytes, and all do at once."""

_TWICE = {SHIPPED: BUILTIN, COPIED: SHARED_MEMORY}


def algorithm_of(row: str) -> str:
    """The algorithm that a row measures."""
    return _TWICE.get(row, row)


def rows_of(algorithms: Sequence[str]) -> list[str]:
    """The rows that measure these algorithms, the backend as shipped first."""
    rows = [SHIPPED]
    for name in algorithms:
        rows += [name, COPIED] if name == SHARED_MEMORY else [name]
    return rows


def size_text(size: int) -> str:
    """4096 -> 4 KB."""
    return f"{size / MB:g} MB" if size >= MB else f"{size / KB:g} KB"


@dataclass(frozen=True)
class AllReduceAssignment:
    """What every process is told.

    Args:
        processes: W.
        most_bytes: of the longest tensor.
        threads: of each process.
    """

    processes: int
    most_bytes: int
    threads: int = 1

    def to_json(self) -> str:
        """As one line, for a process's command line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> AllReduceAssignment:
        """What ``to_json`` has written."""
        return cls(**json.loads(line))
