"""Memory that the processes of one host share: anonymous, reserved before use, gone with the last of them.

One memfd, made by the host's first rank and opened by the others through /proc, holds one row a process:

    [ row of local rank 0 | row of local rank 1 | ... ]

It has no name in any file system, so nothing is left after any death and the size of /dev/shm does not matter.
Every process reserves its own row (on its own NUMA node), so that a page is never missing later.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import platform
import sys
from pathlib import Path

import torch

from batchscale.comm.world.world import World
from batchscale.system.control_groups import free_memory, numbers
from batchscale.system.memory_file import memory_file, path_of

_MARGIN_BYTES = 64 << 20  # of memory that stays free beside a mapping


class NoSharedMemory(Exception):
    """Why the processes of this host cannot share memory; raised on every process alike."""


def unsupported() -> str | None:
    """Why this machine is not made for it, or None.

    The flags that tell processes of each other's progress are plain loads and stores: right where the processor
    keeps stores in order (x86-64's total store order), and not tried on others.
    """
    if sys.platform != "linux" or not hasattr(os, "memfd_create"):
        return f"{sys.platform} has no memfd"
    if platform.machine() not in ("x86_64", "AMD64"):
        return f"memory ordering of {platform.machine()} is not x86-64's"
    return None


class Mapping:
    """Rows of bytes, one a process of this host, visible to all of them.

    Args:
        world: the processes; all of them call this together.
        row_bytes: of one process's row; rounded up to whole pages.

    Attributes:
        rows: uint8 (processes of this host, row bytes).

    Raises:
        NoSharedMemory: on every process, when it fails on any.
    """

    def __init__(self, world: World, row_bytes: int) -> None:
        self._fd = -1
        self._map: mmap.mmap | None = None
        row_bytes = -(-max(row_bytes, 1) // mmap.PAGESIZE) * mmap.PAGESIZE
        try:
            self._make(world, row_bytes)
        except BaseException:
            self._close_fd()
            raise
        self._close_fd()  # the map alone holds the memory now, and goes with the process
        assert self._map is not None
        self.rows: torch.Tensor = torch.frombuffer(self._map, dtype=torch.uint8).view(len(world.local_ranks), row_bytes)

    def _make(self, world: World, row_bytes: int) -> None:
        size, leads = row_bytes * len(world.local_ranks), world.local_rank == 0
        reason = unsupported()
        if leads and not reason:
            reason = self._create(size)
        offers = world.gather((reason, path_of(self._fd), row_bytes), "sharing memory")
        reasons = [r for r, *_ in offers if r]
        if not reasons and len({rows for *_, rows in offers}) > 1:
            reasons = [f"processes asked for rows of {sorted({rows for *_, rows in offers})} bytes"]
        if not reasons:
            _, path, _ = offers[world.local_ranks[0]]
            # Through /proc: the file has no name, and a descriptor could only be sent over a socket.
            reason = self._reserve(path, world.local_rank * row_bytes, row_bytes, leads)
            reasons = [r for r in world.gather(reason, "sharing memory") if r]
        if not reasons:  # only now: whoever maps touches all rows, and each is to lie where its owner runs
            reasons = [r for r in world.gather(self._join(size), "sharing memory") if r]
        if reasons:
            raise NoSharedMemory(reasons[0])

    def _create(self, size: int) -> str | None:
        free = free_bytes()
        if free is not None and size + _MARGIN_BYTES > free:
            return f"{size / 2**20:.0f} MiB are needed and {free / 2**20:.0f} MiB are free"
        try:
            self._fd = memory_file("batchscale")
            os.ftruncate(self._fd, size)
        except OSError as error:
            return f"{size / 2**20:.0f} MiB: {error.strerror}"
        return None

    def _reserve(self, path: str, begin: int, row_bytes: int, leads: bool) -> str | None:
        try:
            if not leads:
                self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            # Pages now, by the process that will write them: on its NUMA node, and an error that can be caught here,
            # where a page that is missing later would end the process by SIGBUS.
            os.posix_fallocate(self._fd, begin, row_bytes)
        except OSError as error:
            return f"{row_bytes / 2**20:.0f} MiB: {error.strerror}"
        return None

    def _join(self, size: int) -> str | None:
        try:
            self._map = mmap.mmap(self._fd, size, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE)
        except (OSError, ValueError) as error:
            return f"{size / 2**20:.0f} MiB: {getattr(error, 'strerror', None) or error}"
        return None

    def _close_fd(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def words(self, row: int, length: int) -> memoryview:
        """The first ``length`` int64 of a row, one word each to read and write."""
        assert self._map is not None
        begin = row * self.rows.shape[1]
        return memoryview(self._map)[begin : begin + 8 * length].cast("q")


def free_bytes(root: str = "/") -> int | None:
    """Memory that this process may still take: of the machine, and of its control groups (of version 1 and 2).

    Args:
        root: of the file system that is looked at.
    """
    free = [*free_memory(root)]
    with contextlib.suppress(OSError, ValueError):
        free += [kib * 1024 for name, kib in numbers(Path(root, "proc/meminfo")) if name == "MemAvailable:"]
    return min(free, default=None)  # whatever is tightest kills first
