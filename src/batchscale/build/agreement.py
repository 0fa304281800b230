"""What every process tries for itself before training, and all of them give up together."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from batchscale.comm import World
from batchscale.errors import UsageError

T = TypeVar("T")


def together(world: World, attempt: Callable[[], T], what: str) -> list[T]:
    """What an attempt gives on every process, in rank order; where it fails on any, all raise.

    Args:
        world: the processes, which all call this together.
        attempt: without an exchange of its own; what it gives is sent to all.
        what: for the error where a process does not come.

    Raises:
        UsageError: a process's own, else that of the lowest rank that has one.
    """
    outcome: T | UsageError
    try:
        outcome = attempt()
    except UsageError as error:
        outcome = error
    outcomes = world.gather(outcome, what)
    for failure in (outcome, *outcomes):
        if isinstance(failure, UsageError):
            raise failure
    return [success for success in outcomes if not isinstance(success, UsageError)]
