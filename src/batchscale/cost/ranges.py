"""What numbers a plan takes: one table of ranges, behind the check of flags and files and on the page of parameters.

They are far wider than what is built today: what lies outside is a slip of the keyboard or of the unit.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Range:
    """Of one number.

    Args:
        low: the least; 0: anything above it.
        high: the largest.
        unit: of it.
        meaning: in words, for the page.
    """

    low: float
    high: float
    unit: str
    meaning: str = ""

    def holds(self, value: float) -> bool:
        """Whether a number lies in it; one that is none does not."""
        return self.low <= value <= self.high and value > 0

    @property
    def span(self) -> str:
        """``1 to 2,000``, or ``above 0, up to 2,000``."""
        return f"{_written(self.low)} to {_written(self.high)}" if self.low else f"above 0, up to {_written(self.high)}"

    @property
    def rule(self) -> str:
        """``must be a number of 1 to 2,000 (GB/s)``."""
        return f"must be a number {'of ' if self.low else ''}{self.span} ({self.unit})"


def _written(value: float) -> str:
    return f"{value:,.0f}" if value >= 1 else f"{value:g}"


MOST_DEVICES = 10**7
OF_CLUSTER = {
    "devices_per_host": Range(1, 65_536, "devices", "devices of a host"),
    "hosts": Range(1, MOST_DEVICES, "hosts", "hosts of the cluster"),
    "cores_per_host": Range(1, 65_536, "cores"),
    "inside_gbyte_per_second": Range(0.001, 1e6, "GB/s", "a device's links inside a host, both directions"),
    "inside_microseconds": Range(0, 1e6, "us", "a round inside a host without bytes"),
    "between_gbit_per_second": Range(0.001, 1e6, "Gbit/s", "a host's links to the others, one direction"),
    "between_microseconds": Range(0, 1e6, "us", "a round between hosts without bytes"),
    "peak_teraflops": Range(0.0001, 1e6, "10^12 operations/s"),
    "memory_gbyte": Range(0.001, 1e5, "GB", "memory of a device"),
    "memory_gbyte_per_second": Range(0.01, 1e6, "GB/s", "to and from a device's memory"),
    "rates": Range(0.0001, 1e9, "examples/s"),
    "launch_microseconds": Range(0.01, 1e5, "us", "of the host, to hand a device one layer of a pass"),
    "jitter_percent": Range(0, 100, "%", "how far a device's step lies from another's"),
    "price_per_device_hour": Range(0, 1e9, "a device-hour", "price"),
    "device_mtbf_hours": Range(1, 1e9, "h", "between failures of a device"),
}
"""By their names in a cluster's file."""
RATE = OF_CLUSTER["rates"]
"""Of one device, measured or read for it."""
DEVICES = Range(1, MOST_DEVICES, "devices")
PER_DEVICE = Range(0.001, 1e9, "examples")
"""Of a device in a measured step; of processes that share a minibatch unevenly the mean."""
EPOCHS = Range(0.0001, 1e6, "epochs", "at a minibatch")
CRITICAL = Range(0.001, 1e12, "examples", "where twice the fewest epochs are needed")
