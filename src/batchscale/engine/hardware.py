"""The device and the threads of a process."""

from __future__ import annotations

import os

import torch

from batchscale.errors import RecipeError
from batchscale.recipe.schema import Numerics, Recipe


def choose_device(recipe: Recipe) -> torch.device:
    """execution.device: cuda for ``auto`` where there is one for each local process.

    Raises:
        RecipeError: cuda was asked for and there is none.
    """
    wanted = recipe.execution.device
    local, local_size = int(os.environ.get("LOCAL_RANK", "0")), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if wanted == "cpu" or (wanted == "auto" and torch.cuda.device_count() < max(local_size, 1)):
        return torch.device("cpu")
    if local >= torch.cuda.device_count():
        raise RecipeError(
            f"execution.device=cuda: process {local} of this host has no GPU (there are {torch.cuda.device_count()}); "
            f"use execution.device=cpu, or fewer --processes"
        )
    torch.cuda.set_device(local)
    return torch.device("cuda", local)


def choose_threads(numerics: Numerics) -> int:
    """numerics.threads: 1 in exact mode, else the cores of this host shared by its processes."""
    if numerics.threads != "auto":
        return numerics.threads
    return 1 if numerics.exact else host_threads()


def host_threads() -> int:
    """The cores of this host shared by its processes."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")), 1)
