"""A link between hosts: what an all-reduce over it takes at the least."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from batchscale.cost.speeds.series import Floats


@dataclass(frozen=True)
class Link:
    """Of one host to all others.

    Args:
        gbit_per_second: beta's inverse, each way.
        microseconds: alpha, of one step without bytes.
    """

    gbit_per_second: float
    microseconds: float

    def all_reduce_seconds(self, hosts: Floats, gradient_bytes: float) -> Floats:
        """Of the fewest steps and the fewest bytes that any all-reduce between hosts does with.

        2 log2(h) alpha + 2 (h - 1) / h bytes beta. Source: Thakur, Rabenseifner, Gropp 2005.

        Args:
            hosts: h, at least 1 each (n).
            gradient_bytes: of one step.

        Returns:
            Seconds (n).
        """
        seconds_a_byte = 8 / (self.gbit_per_second * 1e9)
        latency = 2 * np.ceil(np.log2(hosts)) * self.microseconds * 1e-6
        return np.asarray(latency + 2 * (1 - 1 / hosts) * gradient_bytes * seconds_a_byte)
