"""Gloo's threads and connections: how its event loops are scheduled, which ranks it connects, how it hangs up."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, cast

import torch
import torch.distributed as dist

BATCH: int | None = getattr(os, "SCHED_BATCH", None)
OTHER: int | None = getattr(os, "SCHED_OTHER", None) if BATCH is not None else None

LARGEST_FULL_MESH = 128
"""Ranks up to which Gloo connects everyone with everyone at once, as torch does.

A full mesh costs W - 1 sockets a rank and 8 W^3 bytes through the store (17 MB at 128, 8 GB at 1,000). A lazy one,
whose pairs connect at their first message, costs 2 + 2 log2 W sockets and O(W) bytes; but a rank that waits for the
first message of a dead one waits 5 time-outs in place of one (gloo #520), so small worlds keep the full mesh.
"""
_DESCRIPTORS_PER_RANK, _OTHER_DESCRIPTORS = 4, 1024  # two groups, with a socket a pair and a reserve
_LAZY = "TORCH_GLOO_LAZY_INIT"
_NOBODY_SENDS = 2**31 - 1  # a tag that no exchange uses


def schedule_gloo_threads(policy: int | None) -> None:
    """Put Gloo's event-loop threads of this process on a scheduling policy; nothing where Linux's calls are missing.

    Args:
        policy: ``BATCH``, as ``World`` tunes them: on busy cores the thread else loses time slices to its own
            try-lock; or ``OTHER``, as torch starts them. Neither needs a privilege.

    Measured before the project began: with ``BATCH`` an all-reduce of 1 KB took 0.23 in place of 1.35 ms
    (2 processes on 2 cores), of 16 MB 10.5 in place of 17.6 ms; ``bench allreduce`` measures both.
    """
    if policy is None:
        return
    threads: list[str] = []
    with contextlib.suppress(OSError):  # there is no /proc: they stay as torch starts them
        threads = os.listdir("/proc/self/task")
    for thread in threads:
        with contextlib.suppress(OSError):  # a thread that has just ended
            with open(f"/proc/self/task/{thread}/comm", encoding="utf-8") as file:
                name = file.read().strip()
            if name.startswith("gloo") and int(thread) != threading.get_native_id():
                os.sched_setscheduler(int(thread), policy, os.sched_param(0))


@contextlib.contextmanager
def mesh_for(size: int) -> Iterator[None]:
    """While a group of W ranks is made: connections at need where W is large, and descriptors for them.

    Args:
        size: W. Who has set ``TORCH_GLOO_LAZY_INIT`` has chosen, for any W.
    """
    if size > LARGEST_FULL_MESH:
        _allow_descriptors(size)
    if size <= LARGEST_FULL_MESH or _LAZY in os.environ:
        yield
        return
    os.environ[_LAZY] = "1"  # the backend reads it whenever it makes a group
    try:
        yield
    finally:
        del os.environ[_LAZY]


def _allow_descriptors(size: int) -> None:
    """Room for the connections of W ranks: rank 0 gathers from all, and the usual 1,024 is soon full."""
    with contextlib.suppress(ImportError, OSError, ValueError):  # not on every system; a limit that may not be moved
        import resource

        limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        needed = _DESCRIPTORS_PER_RANK * size + _OTHER_DESCRIPTORS
        needed = needed if most == resource.RLIM_INFINITY else min(needed, most)
        # No more: some programs that are started from here close every descriptor up to the limit.
        if limit != resource.RLIM_INFINITY and limit < needed:
            resource.setrlimit(resource.RLIMIT_NOFILE, (needed, most))


def neighbours(rank: int, size: int) -> list[int]:
    """The ranks at distances 1, 2, 4, ...: those at 1 meet in every gather, the others before every new sum."""
    distances = [1 << power for power in range((size - 1).bit_length())]
    peers = dict.fromkeys((rank + step) % size for distance in distances for step in (distance, -distance))
    return [peer for peer in peers if peer != rank]


def hang_up(group: Any, rank: int) -> None:
    """Close this rank's connections, so that every peer's wait fails.

    A receive that times out makes Gloo close all connections of its group. So the first peer is enough that is not
    itself hung up; tried are first the neighbours, which are connected in a lazy mesh, too.

    Args:
        group: of Gloo.
        rank: of this process in it.
    """
    size = dist.get_world_size(group)
    peers = neighbours(rank, size)
    if size <= LARGEST_FULL_MESH:
        peers += sorted(set(range(size)) - {rank, *peers})

    def try_peers() -> None:
        for peer in peers:
            try:
                work = dist.irecv(torch.empty(1), group=group, tag=_NOBODY_SENDS, group_src=peer)
                cast(dist.Work, work).wait(timedelta(milliseconds=1))
            except RuntimeError as error:
                if "imed out" in str(error):
                    return

    # In a thread, because in a lazy mesh a peer that died before its first message is waited for.
    thread = threading.Thread(target=try_peers, daemon=True)
    thread.start()
    thread.join(1.0)
