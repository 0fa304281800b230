"""The device and the threads of a process."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from batchscale.comm.world.device import may_share
from batchscale.comm.world.nccl import MORE_SHARED_MEMORY
from batchscale.errors import RecipeError
from batchscale.launch.signals import RUNS_AT_ONCE
from batchscale.recipe.numerics import Numerics
from batchscale.recipe.schema import Recipe
from batchscale.system.cores import available_cores
from batchscale.system.launcher import of_cluster
from batchscale.system.notes import note

_SHARED_MEMORY_BYTES = 1 << 30  # Docker gives 64 MiB, where NCCL was seen to fail (NVIDIA/nccl issues 290 and 525)


def local_place() -> tuple[int, int]:
    """(number of this process on its host, processes there), as a launcher has set them."""
    return int(os.environ.get("LOCAL_RANK", "0")), max(int(os.environ.get("LOCAL_WORLD_SIZE", "1")), 1)


def choose_device(recipe: Recipe, root: str = "/") -> torch.device:
    """execution.device: for ``auto`` a GPU where there is any; one a process.

    A process that sees a single GPU takes it, whatever its number: a cluster may show each task its own. That no two
    have the same one, ``World.connect`` finds out.

    Args:
        recipe: resolved.
        root: of the file system where GPUs' device files, and shared memory, are looked for.

    Raises:
        RecipeError: cuda was asked for and there is none; there are GPUs, but fewer than processes.
    """
    wanted = recipe.execution.device
    if wanted == "cpu":
        return torch.device("cpu")
    place, processes = local_place()
    processes = max(processes, place + 1)  # LOCAL_RANK alone may be set
    gpus = torch.cuda.device_count()
    if not gpus:
        sign = _sign_of_gpus(root)
        if wanted == "cuda":
            though = f", though {sign}; {_WAY_OUT}" if sign else ""
            raise RecipeError(
                f"execution.device=cuda: process {place} of this host has no GPU{though}; use execution.device=cpu, or "
                f"a machine with GPUs"
            )
        if sign and place == 0:
            note(f"no GPU can be used, though {sign}: training on the CPU; {_WAY_OUT}, or set execution.device=cpu")
        return torch.device("cpu")
    if 1 < gpus < processes and not may_share():
        raise RecipeError(
            f"execution.device={wanted}: this host has {processes} processes and {gpus} GPUs, and each process needs "
            f"its own; use {gpus} processes here, or execution.device=cpu"
        )
    device = torch.device("cuda", place % gpus)
    torch.cuda.set_device(device)
    if place == 0 and (line := little_shared_memory(processes, root)):
        note(line)
    return device


def may_use_gpu(recipe: Recipe) -> bool:
    """Whether a run of this recipe takes a GPU here, as far as is known before it does."""
    return recipe.execution.device != "cpu" and torch.cuda.device_count() > 0


_WAY_OUT = "`nvidia-smi` and `python -c 'import torch; torch.cuda.init()'` say why"


def _sign_of_gpus(root: str) -> str:
    """What speaks for GPUs that torch cannot use; "" where nothing does."""
    files = sorted(Path(root, "dev").glob("nvidia[0-9]*"))
    if files:
        return f"/dev/{files[0].name} is there"
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").strip()
    return f"CUDA_VISIBLE_DEVICES={visible} names one" if visible not in ("", "-1", "NoDevFiles") else ""


def little_shared_memory(processes: int, root: str = "/") -> str | None:
    """That /dev/shm may be too small for NCCL, as a line for a user; None where it is not, or nobody needs it.

    Args:
        processes: of this host, on GPUs.
        root: of the file system that is looked at.
    """
    if processes < 2:
        return None
    try:
        status = os.statvfs(Path(root, "dev", "shm"))
    except OSError:
        size = "is missing"
    else:
        if (total := status.f_blocks * status.f_frsize) >= _SHARED_MEMORY_BYTES:
            return None
        size = f"has {total >> 20} MiB"
    why = f"NCCL may need 1 GiB for {processes} processes ('No space left on device')"
    return f"/dev/shm {size}, and {why}: {MORE_SHARED_MEMORY}"


def most_threads(numerics: Numerics) -> int:
    """numerics.threads; for ``auto`` 1 in exact mode, else one a core of this process."""
    if numerics.threads != "auto":
        return numerics.threads
    return 1 if numerics.exact else own_cores()


def own_cores() -> int:
    """The cores of this process alone: those of the host shared by its processes, and by the runs of a study.

    Where Slurm has counted a task's, these: a task may be bound to them, and then sees no others, or not.
    """
    task, cores = of_cluster(), available_cores()
    share = cores // local_place()[1] if task is None or task.cores is None else min(cores, task.cores)
    return max(share // int(os.environ.get(RUNS_AT_ONCE, "1")), 1)


def threads_text(threads: int, cores_per_thread: int) -> str:
    """That fewer threads than cores were chosen, as a line for a user."""
    return (
        f"threads: {threads} a process, one for {cores_per_thread} cores: more were not "
        f"clearly faster in a trial; numerics.threads=N sets another number"
    )
