"""GPUs of this machine, handed out to runs so that each has its own while there are enough."""

from __future__ import annotations

import os
from collections.abc import Sequence

from batchscale.recipe import Recipe
from batchscale.words import counted

VISIBLE = "CUDA_VISIBLE_DEVICES"


def visible_devices() -> tuple[str, ...]:
    """Names of the GPUs that this process may use, as CUDA_VISIBLE_DEVICES writes them: numbers, UUIDs or MIG names.

    Counting may initialise CUDA in this process: runs are forks of another one, which never counts.
    """
    import torch

    count = torch.cuda.device_count()
    names = [name.strip() for name in os.environ.get(VISIBLE, "").split(",") if name.strip()]
    if not names:
        return tuple(map(str, range(count)))
    if names[0].startswith("MIG-"):  # a process uses one of them whatever is listed, and counts one
        return tuple(names) if count else ()
    return tuple(names[:count])  # the list ends at the first name that CUDA does not know


def may_use_gpu(recipe: Recipe) -> bool:
    """Whether a run of it trains on a GPU where there is one."""
    return recipe.execution.device != "cpu"


class DevicePool:
    """Devices and how many runs are on each.

    Args:
        names: as CUDA_VISIBLE_DEVICES writes them.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._runs = dict.fromkeys(names, 0)

    def take(self, processes: int) -> tuple[str, ...]:
        """So many devices, those with the fewest runs; none where there are not so many."""
        if processes > len(self._runs):
            return ()
        chosen = tuple(sorted(self._runs, key=lambda name: self._runs[name])[:processes])
        for name in chosen:
            self._runs[name] += 1
        return chosen

    def give_back(self, devices: Sequence[str]) -> None:
        """Those that ``take`` gave."""
        for name in devices:
            self._runs[name] -= 1


def sharing_words(jobs: int, processes: int, devices: int) -> str:
    """How many runs are on a GPU, for a user.

    Args:
        jobs: runs at once.
        processes: of a run.
        devices: GPUs of this machine, at least as many.
    """
    gpus = counted(devices, "GPU")
    runs = f"{counted(jobs, 'run')} at once"
    at_most = -(-jobs * processes // devices)
    if at_most > 1:
        return f"{runs} on {gpus}: up to {at_most} share one; --jobs {max(devices // processes, 1)} gives each its own"
    each = "one" if processes == 1 else str(processes)
    return f"{runs} on {gpus}, {each} each (--jobs)"
