"""Threads that make minibatches compute alone: many at once, each on one core.

Every thread of a pool would start a team of OpenMP threads of its own for an operation as small as one image's, and
these wait for each other on cores that train.
"""

from __future__ import annotations

import torch
from threadpoolctl import threadpool_limits


def compute_alone() -> None:
    """Let torch's operations of this thread, and of no other, use no further threads."""
    torch.get_num_threads()  # a thread's first question sets its number; what is set before that does not last
    threadpool_limits(1, user_api="openmp")
