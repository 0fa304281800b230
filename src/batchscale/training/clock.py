"""Moments of a device, and the seconds between them: the host's clock for a CPU, events in the stream for a GPU.

A host launches work on a GPU and goes on: between two looks at its own clock lies the launch, not the work.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import torch


class Clock(Protocol):
    """Where times come from. A mark is the moment when all work launched before it is done."""

    def mark(self) -> Any:
        """The moment behind what has been launched so far."""

    def passed(self, mark: Any) -> bool:
        """Whether it has come; asks, and does not wait."""

    def seconds(self, start: Any, end: Any) -> float:
        """From one mark to a later one; waits for the later one."""


class HostClock:
    """The host's own clock: right where work is done when its call returns."""

    def mark(self) -> float:
        """Now."""
        return time.perf_counter()

    def passed(self, mark: float) -> bool:
        """A moment of the past."""
        return True

    def seconds(self, start: float, end: float) -> float:
        """The difference."""
        return end - start


class EventClock:
    """Events in the stream that work is launched into; the device notes when it comes to each.

    Args:
        make_event: makes events that note the time.
    """

    def __init__(self, make_event: Callable[[], Any]) -> None:
        self._make_event = make_event

    def mark(self) -> Any:
        """An event behind all work of the current stream."""
        event = self._make_event()
        event.record()
        return event

    def passed(self, mark: Any) -> bool:
        """Whether the device has come to it."""
        return bool(mark.query())

    def seconds(self, start: Any, end: Any) -> float:
        """By the device's notes, which are in milliseconds."""
        end.synchronize()
        return float(start.elapsed_time(end)) / 1000


def clock_of(device: torch.device) -> Clock:
    """The clock that measures a device's work."""
    return EventClock(partial(torch.cuda.Event, enable_timing=True)) if device.type == "cuda" else HostClock()
