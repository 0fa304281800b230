"""Which points of a series calibrate, and which are then predicted.

two   the two smallest device counts of at least one host calibrate, the rest are predicted; a series needs three.
host  the device counts inside one host calibrate, those beyond it are predicted; a series needs two and one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from batchscale.cost.speeds.series import SpeedSeries, known_fault

Mode = Literal["two", "host"]


@dataclass(frozen=True)
class Split:
    """A series, split.

    Args:
        measured: what calibrates.
        others: what is predicted.
    """

    measured: SpeedSeries
    others: SpeedSeries


def split(series: SpeedSeries, mode: Mode) -> Split | str:
    """What calibrates and what is predicted, or why the series is not one for this mode, in words."""
    if mode == "host":
        inside = sum(count <= series.devices_per_host for count in series.devices)
        if inside < 2:
            return "fewer than two device counts inside one host"
        if inside == len(series.devices):
            return "no device count beyond one host"
        return Split(series.part(0, inside), series.part(inside))
    first = sum(count < series.devices_per_host for count in series.devices)
    if len(series.devices) - first < 3:
        return "fewer than three device counts of at least one host"
    return Split(series.part(first, first + 2), series.part(first + 2))


def refusal(series: SpeedSeries, parts: Split) -> str | None:
    """Why an eligible series is not predicted; None: it is."""
    if (fault := known_fault(series.name)) is not None:
        return f"known fault of the source: {fault}"
    if outliers := parts.measured.outliers:
        return (
            f"the measured points contradict each other: at {outliers[0]} devices the speed a device is half of that "
            f"below, or less; measure both again"
        )
    return None
