"""Threads that make minibatches compute alone: many at once, each on one core.

Every thread of a pool would start a team of OpenMP threads of its own for an operation as small as one image's, and
these wait for each other on cores that train.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from threadpoolctl import threadpool_limits

T = TypeVar("T")


def compute_alone() -> None:
    """Let torch's operations of this thread, and of no other, use no further threads."""
    torch.get_num_threads()  # a thread's first question sets its number; what is set before that does not last
    threadpool_limits(1, user_api="openmp")


def parts_ahead(read: Callable[[slice], T], parts: Sequence[slice]) -> Iterator[T]:
    """What ``read`` makes of every part, each part read while the one before it is used."""
    pool, waits = ThreadPoolExecutor(1, "batchscale-evaluation", compute_alone), True
    try:
        following = None
        for part in parts:
            current, following = following, pool.submit(read, part)
            if current is not None:
                yield current.result()
        if following is not None:
            yield following.result()
    except KeyboardInterrupt:  # a part that hangs is not waited for
        waits = False
        raise
    finally:
        pool.shutdown(wait=waits, cancel_futures=True)
