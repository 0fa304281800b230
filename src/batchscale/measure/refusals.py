"""What one process cannot measure is an error on all: none may wait for numbers that do not come."""

from __future__ import annotations

from batchscale.comm import World
from batchscale.errors import UsageError


def raise_on_all(own: UsageError | None, world: World) -> None:
    """Raise the first process's refusal, where one has any; all processes call it together.

    Args:
        own: this process's; None for none.
        world: the processes.
    """
    for refusal in world.gather(own, "gathering what went wrong in a measure"):
        if refusal is not None:
            raise refusal
