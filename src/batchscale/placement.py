"""Which of the k workers each of the W processes hosts, and which processes share a group of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from batchscale.errors import RecipeError


def place_workers(workers: int, processes: int, span: int = 1) -> list[range]:
    """Which of the k workers each of the W processes hosts: contiguous, as even as possible, in whole groups.

    Process r hosts g ceil((k/g - r) / W) workers: 8 on 3 gives 3, 3, 2. Where there are more processes than groups,
    every group has processes of its own, as even as possible, and they share its workers in the same way.

    Args:
        workers: k, logical workers.
        processes: W, operating-system processes.
        span: g, workers that share their batch-norm statistics; divides k. In whole groups no forward pass
            communicates.

    Returns:
        One range of worker numbers a process, in rank order.

    Raises:
        RecipeError: W is below 1 or larger than k, or g does not divide k.

    Examples:
        >>> batchscale.place_workers(workers=8, processes=3)
        [range(0, 3), range(3, 6), range(6, 8)]
        >>> batchscale.place_workers(workers=8, processes=3, span=2)
        [range(0, 4), range(4, 6), range(6, 8)]
        >>> batchscale.place_workers(workers=8, processes=3, span=4)
        [range(0, 2), range(2, 4), range(4, 8)]
    """
    if processes < 1:
        raise RecipeError(f"--processes={processes}: must be at least 1; write --processes 1")
    groups, left_over = divmod(workers, span)
    if left_over:
        raise RecipeError(
            f"batch_norm.span={span} must divide minibatch.workers={workers}, as every number of workers that it grows "
            f"to (statistics over whole groups of workers); use {math.gcd(span, workers)}"
        )
    if processes > workers:
        raise RecipeError(
            f"--processes={processes}: must not exceed minibatch.workers={workers} (a process without a worker "
            f"has nothing to do); use --processes {workers} or raise minibatch.workers"
        )
    if processes <= groups:
        return [range(part.start * span, part.stop * span) for part in _even(range(groups), processes)]
    # A process with parts of two groups would make one wait for the other.
    shares = _even(range(processes), groups)
    return [
        part
        for group, share in enumerate(shares)
        for part in _even(range(group * span, (group + 1) * span), len(share))
    ]


def processes_of_groups(placed: Sequence[range], span: int) -> list[list[int]]:
    """The ranks that host each group of ``span`` workers; [] where each group lies whole on one process.

    Args:
        placed: from ``place_workers``.
        span: g.
    """
    groups: dict[int, list[int]] = {}
    for rank, part in enumerate(placed):
        groups.setdefault(part.start // span, []).append(rank)
    return list(groups.values()) if any(len(part) < span for part in placed) else []


def _even(numbers: range, parts: int) -> list[range]:
    """Numbers cut into parts that differ by one at most, larger ones first."""
    small, larger = divmod(len(numbers), parts)
    ends = [numbers.start + number * small + min(number, larger) for number in range(parts + 1)]
    return [range(start, stop) for start, stop in pairwise(ends)]
