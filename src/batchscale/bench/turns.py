"""Whose turn it is, and being asked to stop between turns."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from typing import TypeVar

from batchscale.errors import BatchscaleError
from batchscale.launch.signals import StopSignals

T = TypeVar("T")


class BenchStopped(BatchscaleError):
    """The benchmark was asked to stop, and has ended its processes."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}; all processes were ended")
        self.exit_code = 128 + number


def stop_check(signals: StopSignals) -> Callable[[], None]:
    """A function that raises BenchStopped once a signal was received."""

    def check() -> None:
        if signals.received is not None:
            raise BenchStopped(signals.received)

    return check


def in_turn(running: Sequence[T], round_: int) -> list[T]:
    """The order of a round: once forwards, once backwards, then the same begun one further."""
    shift = round_ // 2 % max(len(running), 1)
    order = [*running[shift:], *running[:shift]]
    return order[::-1] if round_ % 2 else order
