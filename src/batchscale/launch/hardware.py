"""The device and the threads of a process."""

from __future__ import annotations

import os

import torch

from batchscale.errors import RecipeError
from batchscale.launch.signals import RUNS_AT_ONCE
from batchscale.recipe.schema import Numerics, Recipe
from batchscale.system.cores import available_cores


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


def most_threads(numerics: Numerics) -> int:
    """numerics.threads; for ``auto`` 1 in exact mode, else one a core of this process."""
    if numerics.threads != "auto":
        return numerics.threads
    return 1 if numerics.exact else own_cores()


def own_cores() -> int:
    """The cores of this host shared by its processes, and by the runs of a study."""
    sharing = int(os.environ.get("LOCAL_WORLD_SIZE", "1")) * int(os.environ.get(RUNS_AT_ONCE, "1"))
    return max(available_cores() // sharing, 1)


def threads_text(threads: int, cores_per_thread: int) -> str:
    """That fewer threads than cores were chosen, as a line for a user."""
    return (
        f"threads: {threads} a process, one for {cores_per_thread} cores: more were not "
        f"clearly faster in a trial; numerics.threads=N sets another number"
    )
