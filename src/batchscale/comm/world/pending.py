"""A reduction under way."""

from __future__ import annotations

from typing import cast

import torch
import torch.distributed as dist

from batchscale.comm.world.exchanges import Exchanges


class Pending:
    """A reduction under way: after ``wait()`` the tensor holds the sum."""

    def __init__(self, exchanges: Exchanges, work: dist.Work, what: str, brought: str, call: int) -> None:
        self._exchanges, self._work, self._doing = exchanges, work, (what, brought, call)

    def wait(self) -> None:
        """Have what comes next find the sum: the host waits for it on the CPU, on a GPU its stream alone.

        Raises:
            ProcessError: names a rank that died, hangs or brought something else.
        """
        self._exchanges.guard(self._work.wait, *self._doing)

    def future(self) -> torch.futures.Future[list[torch.Tensor]]:
        """The backend's future of the sum: on GPUs it is complete when the device has been told to make it."""
        return cast("torch.futures.Future[list[torch.Tensor]]", self._work.get_future())
