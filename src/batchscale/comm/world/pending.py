"""A reduction under way."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
import torch.distributed as dist

from batchscale.comm.world.device import wait_on_host

if TYPE_CHECKING:
    from batchscale.comm.world.world import World


class Pending:
    """A reduction under way: ``wait()`` returns when the tensor holds the sum."""

    def __init__(self, world: World, work: dist.Work, what: str, brought: str, call: int) -> None:
        self._world, self._work, self._doing = world, work, (what, brought, call)

    def wait(self) -> None:
        """Block until the sum is there; ProcessError names a rank that died, hangs or brought something else."""
        self._world._guard(self._wait, *self._doing)

    def _wait(self) -> None:
        self._work.wait()
        if self._world.queue is not None:  # that was the device's stream alone
            wait_on_host(self._world.queue.mark(), self._world.patience)

    def future(self) -> torch.futures.Future[list[torch.Tensor]]:
        """The backend's future of the sum: on GPUs it is complete when the device has been told to make it."""
        return cast("torch.futures.Future[list[torch.Tensor]]", self._work.get_future())
