"""Compiling, or capturing, a run's passes before its first step: no step's time holds the compiler's."""

from __future__ import annotations

import time

import torch

from batchscale.build.trial import PassTimer


def sizes_of_passes(groups: int, at_once: int) -> list[int]:
    """Groups of every pass of a step, each number once, the largest first.

    Args:
        groups: that this process hosts.
        at_once: of a pass, at most.
    """
    at_once = min(at_once, groups)
    return [size for size in (at_once, groups % at_once) if size]


def compile_passes(timer: PassTimer, sizes: list[int], device: torch.device) -> float:
    """Run a pass of every size, forward and backward; random numbers, weights and averages stay as they are.

    The largest comes first: rows of statistics that grow would be another shape, and compiled anew.

    Returns:
        The seconds that it took.
    """
    begun = time.perf_counter()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        for size in sizes:
            timer.run_once(size)
    return time.perf_counter() - begun
