"""Time that tests move by themselves: a host's clock, and a device that works behind its host's back."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class VirtualClock:
    """A host's clock that stands still until a test moves it."""

    now: float = 0.0

    def mark(self) -> float:
        return self.now

    def passed(self, mark: float) -> bool:
        return mark <= self.now

    def seconds(self, start: float, end: float) -> float:
        return end - start


@dataclass
class VirtualDevice:
    """Work is launched in no time at all, and done one after the other; events note when the device comes to them.

    Attributes:
        host: seconds by the host's clock.
        busy_until: when the device has done all that was launched.
        waits: of the host, for events that had not come.
    """

    host: float = 0.0
    busy_until: float = 0.0
    waits: list[float] = field(default_factory=list)

    def launch(self, seconds: float) -> None:
        """Work for so long."""
        self.busy_until = max(self.host, self.busy_until) + seconds

    def wait(self) -> None:
        """The host looks at a result."""
        self.host = max(self.host, self.busy_until)

    def event(self) -> VirtualEvent:
        """An event that notes the time, as ``torch.cuda.Event(enable_timing=True)``."""
        return VirtualEvent(self)


class VirtualEvent:
    def __init__(self, device: VirtualDevice) -> None:
        self._device, self._moment = device, float("nan")

    def record(self) -> None:
        self._moment = max(self._device.host, self._device.busy_until)

    def query(self) -> bool:
        return self._moment <= self._device.host

    def synchronize(self) -> None:
        if not self.query():
            self._device.waits.append(self._moment - self._device.host)
            self._device.host = self._moment

    def elapsed_time(self, end: VirtualEvent) -> float:
        assert end.query(), "asked for an event that has not come"
        return 1000 * (end._moment - self._moment)
