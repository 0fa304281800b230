"""Where the time of a step goes: a lap for each of its phases."""

from __future__ import annotations

from collections import deque
from typing import Any

from batchscale.training.clock import Clock, HostClock

_BETWEEN = ""  # the lap from one step's end to the next one's beginning: nobody's


class PhaseSeconds:
    """Where the time of this process's steps went, summed since the last ``take``.

    data: waiting for the passes of the step
    forward: model and loss, with the clearing of the sums before them
    backward: gradients; what of the aggregation overlaps with them is in here
    aggregation: waiting for the sum after the last backward pass, for slower processes too
    update: the optimizer, the running averages

    On a GPU a lap is the device's own time, and ends where the device comes to its end: a step's laps are read when
    that has come, by then mostly in the next step, so that the host waits for none of them.

    Args:
        clock: of the device.
    """

    NAMES = ("data", "forward", "backward", "aggregation", "update")

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock: Clock = clock or HostClock()
        self._sums = dict.fromkeys(self.NAMES, 0.0)
        self._laps: deque[tuple[str, Any]] = deque()

    def begin(self, phase: str) -> Any:
        """The phase at hand ends and this one begins; returns the mark of that moment."""
        mark = self.clock.mark()
        self._laps.append((phase, mark))
        return mark

    def end(self) -> None:
        """The step ends; count the laps that the device has run through."""
        self.begin(_BETWEEN)
        while len(self._laps) > 1 and self.clock.passed(self._laps[1][1]):
            self._count()

    def take(self) -> dict[str, float]:
        """The sums so far, set back to zero; where a line is due, whose numbers have waited for the step already."""
        while len(self._laps) > 1:
            self._count()
        seconds = {name: round(value, 6) for name, value in self._sums.items()}
        self._sums = dict.fromkeys(self.NAMES, 0.0)
        return seconds

    def _count(self) -> None:
        phase, start = self._laps.popleft()
        if phase != _BETWEEN:
            self._sums[phase] += self.clock.seconds(start, self._laps[0][1])
