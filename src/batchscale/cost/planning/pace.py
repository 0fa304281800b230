"""Seconds of a step at any number of devices: by physics alone, or led through measured points.

Without points:  log T(d, n) = log P(d, n)            P: the physical step time, by the fastest all-reduce
With points:     log T(d, n) = log M(d) + log P(d, n) - log P(d, n0)

M is the small form through the points, all brought to the examples a device n0 of the largest one by P. So physics
says what no points can (other examples a device, another link), and points say the rest.

What is uncertain is a column of draws each: the small form's L, S, C and scatter; the rate of a device, 23 % where it
was measured by others; and P's ratio between numbers of examples a device, 5 % for each doubling away from those that
were measured at that d: the ratio brings points to n0 and from there to n, so what counts is log2 n - log2 n_d.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from batchscale.cost.planning.estimate import medians_of, normals
from batchscale.cost.speeds.priors import shipped_priors
from batchscale.cost.speeds.series import Floats
from batchscale.cost.speeds.small_draws import drawn_numbers
from batchscale.cost.speeds.small_form import steps_of

RATE_SPREAD = 0.23
"""Of log of a device's rate, where none was measured on the cluster itself."""
RATE_SOURCE = "DLPerf report of October 2020: ResNet-50 on one V100 in half precision, by eight frameworks"
RATIO_SPREAD = 0.05
"""Of log P's ratio, at each doubling of the examples a device away from those of the points, and of P itself where the
rate was measured by whoever plans: stated, not fitted."""
_COLUMNS = 6  # 0 to 3 are the small form's
_RATE, _RATIO = 4, 5


@dataclass(frozen=True)
class DeviceLoad:
    """What one device holds and does in a step.

    Args:
        operations: of the net.
        peak: operations a second; None: not known.
        micro_batch: examples of a pass.
        memory_bytes: that are needed at least: weights, gradients, the optimizer's state, what forward keeps.
    """

    operations: float
    peak: float | None
    micro_batch: int
    memory_bytes: float

    def peak_percent(self, seconds: float) -> float | None:
        """Of the device's peak, in a step of so many seconds; None where that is not known."""
        return None if self.peak is None else 100 * self.operations / (seconds * self.peak)


class Physics(Protocol):
    """What a step takes by layers, links and algorithms."""

    def load(self, per_device: int) -> DeviceLoad:
        """What a device of so many examples holds and does in a step."""
        ...

    def best(self, devices: Floats, per_device: int) -> tuple[Sequence[str], Floats]:
        """The fastest all-reduce at each count, and log of the seconds of a step with it.

        Args:
            devices: counts (m).
            per_device: examples of a device in a step.

        Returns:
            Names and numbers (m each).
        """
        ...


@dataclass(frozen=True)
class MeasuredPoint:
    """A step as it was measured.

    Args:
        devices: that took it.
        per_device: examples of a device.
        seconds: of the step.
        place: where it stands, for sentences.
    """

    devices: int
    per_device: float
    seconds: float
    place: str

    @property
    def examples_per_second(self) -> float:
        """All devices together."""
        return self.devices * self.per_device / self.seconds


@dataclass(frozen=True)
class Pace:
    """How long a step takes.

    Args:
        physics: by layers, links and algorithms.
        devices_per_host: of the cluster.
        points: measured, at rising device counts; none: by physics alone.
        rate_measured: of one device, by whoever plans, and not by others on such a device.
    """

    physics: Physics
    devices_per_host: int
    points: tuple[MeasuredPoint, ...] = ()
    rate_measured: bool = False

    @property
    def measured(self) -> bool:
        """Whether points lead it."""
        return bool(self.points)

    def middle(self, devices: Floats) -> Floats:
        """What is added to log P for the value itself (m)."""
        if not self.points:
            return np.zeros(len(devices))
        return medians_of(self._by_points(devices))

    def corrections(self, devices: Floats, per_device: int) -> Floats:
        """What is added to log P, as draws (D, m).

        Args:
            devices: counts (m).
            per_device: examples of a device in a step.
        """
        if not self.points:
            return self._by_physics(devices)
        away = RATIO_SPREAD * (math.log2(per_device) - self._measured_sizes(devices))
        return np.asarray(self._by_points(devices) + np.outer(normals(_COLUMNS)[:, _RATIO], away))

    def _measured_sizes(self, devices: Floats) -> Floats:
        """log2 of the examples a device that the points have: between their counts on a line, as M is (m)."""
        counts = np.log2([point.devices for point in self.points])
        sizes = np.log2([max(round(point.per_device), 1) for point in self.points])
        return np.asarray(np.interp(np.log2(devices), counts, sizes))

    def _by_points(self, devices: Floats) -> Floats:
        """log M(d) - log P(d, n0) (D, m)."""
        return np.asarray(self._levels(devices) - self.physics.best(devices, self._reference)[1])

    def _by_physics(self, devices: Floats) -> Floats:
        """How far clusters lie from one another, and how far a rate that nobody measured, about a median of 0."""
        hosts = devices / self.devices_per_host
        numbers = drawn_numbers(shipped_priors().medians)
        beyond = numbers.beyond(np.log2(np.maximum(hosts, 1)), hosts > 1)
        spread = RATIO_SPREAD if self.rate_measured else RATE_SPREAD
        rate = spread * normals(_COLUMNS)[:, _RATE]
        return np.asarray(rate[:, None] + beyond - medians_of(beyond))

    @property
    def _reference(self) -> int:
        """n0."""
        return max(round(self.points[-1].per_device), 1)

    def physics_of(self, point: MeasuredPoint) -> float:
        """log P of a measured step."""
        counts = np.array([float(point.devices)])
        return float(self.physics.best(counts, max(round(point.per_device), 1))[1][0])

    @property
    def levelled(self) -> Floats:
        """log seconds of each point, brought to n0 examples a device (points)."""
        reference = self._reference
        return np.array([
            np.log(point.seconds) + self.physics_of(replace(point, per_device=reference)) - self.physics_of(point)
            for point in self.points
        ])  # fmt: skip

    def _levels(self, devices: Floats) -> Floats:
        """log M (D, m): between points a line in log devices, below them their first, beyond them the small form."""
        counts, logs = np.array([float(point.devices) for point in self.points]), self.levelled
        measured_hosts, hosts = counts / self.devices_per_host, devices / self.devices_per_host
        last_hosts = float(measured_hosts[-1])
        onward = steps_of(measured_hosts, logs).those(leaving=False)  # the step that leaves the host says nothing
        numbers = drawn_numbers(shipped_priors().medians, onward)
        inner = np.interp(np.log2(devices), np.log2(counts), logs)
        away = np.min(np.abs(np.log2(devices)[:, None] - np.log2(counts)), axis=1)
        within = inner + np.outer(numbers.jitter * numbers.normal, np.sqrt(away))
        doublings = np.log2(np.maximum(hosts, 1) / max(last_hosts, 1))
        beyond = logs[-1] + numbers.beyond(np.maximum(doublings, 0), (hosts > 1) & (last_hosts <= 1))
        return np.where(hosts > max(last_hosts, 1), beyond, within)


def rising(points: Sequence[MeasuredPoint]) -> tuple[MeasuredPoint, ...]:
    """One point a device count, by the median of its seconds an example, at rising counts; of two the slower."""
    by: dict[int, list[MeasuredPoint]] = {}
    for point in points:
        by.setdefault(point.devices, []).append(point)
    chosen = []
    for devices in sorted(by):
        alike = sorted(by[devices], key=lambda point: point.examples_per_second)
        chosen.append(alike[(len(alike) - 1) // 2])
    return tuple(chosen)
