"""Which measured points lead a plan, and how far they lie from what would have been predicted without them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np

from batchscale.cost.planning.pace import MeasuredPoint, Pace, rising
from batchscale.errors import DataError
from batchscale.words import counted, rounded

Mode = Literal["two", "host"]
FEWEST = 2
MOST_APART_PERCENT = 5.0
"""Of two speeds of the same devices and examples: about twice what two good measurements differ by."""
_NEEDED = {
    "two": "two device counts of at least one host",
    "host": "two device counts inside one host",
}


def chosen_points(
    points: Sequence[MeasuredPoint], devices_per_host: int, mode: Mode | None, places: str
) -> tuple[tuple[MeasuredPoint, ...], Mode]:
    """The points that lead a plan: all of at least one host, or all inside one.

    Args:
        points: as measured.
        devices_per_host: of the cluster.
        mode: which ones; None: those of at least one host where there are two counts of them, else those inside one.
        places: where they were read, for errors.

    Raises:
        DataError: fewer than two device counts are left.
    """
    every = rising(points)
    by_mode: dict[Mode, tuple[MeasuredPoint, ...]] = {
        "two": tuple(point for point in every if point.devices >= devices_per_host),
        "host": tuple(point for point in every if point.devices <= devices_per_host),
    }
    if mode is None:
        mode = "two" if len(by_mode["two"]) >= FEWEST else "host"
        if len(by_mode[mode]) < FEWEST <= len(every):  # one count inside a host and one beyond it
            return every, "two"
    points_left = by_mode[mode]
    if len(points_left) < FEWEST:
        counts = ", ".join(str(point.devices) for point in every) or "none"
        raise DataError(
            f"--from={places}: device counts measured: {counts}; a host of the cluster has {devices_per_host}, and "
            f"--calibrate {mode} needs {_NEEDED[mode]}; measure at another number of devices, and give both"
        )
    return points_left, mode


def contradictions(points: Sequence[MeasuredPoint], examples: str) -> Iterator[str]:
    """One line where speeds of the same devices and examples a device lie apart.

    Args:
        points: as measured.
        examples: what they count.
    """
    by: dict[tuple[int, float], list[MeasuredPoint]] = {}
    for point in points:
        by.setdefault((point.devices, point.per_device), []).append(point)
    for (devices, each), alike in by.items():
        slow, fast = (pick(alike, key=lambda point: point.examples_per_second) for pick in (min, max))
        apart = 100 * (fast.examples_per_second / slow.examples_per_second - 1)
        if apart > MOST_APART_PERCENT:
            yield (
                f"{slow.place}, and {fast.place}: {counted(devices, 'device', ',')} of {each:g} {examples} each at "
                f"{rounded(slow.examples_per_second)} and at {rounded(fast.examples_per_second)} {examples}/s, "
                f"{apart:.0f} % apart: the plan goes by the middle one, of two by the slower; measure again, and leave "
                f"the wrong one out"
            )


def residuals(pace: Pace) -> dict[str, Any] | None:
    """The points beside the physics alone; the plan itself goes through each of them. None: no point.

    ``level``: measured over physics, the median of the points; ``shape_percent``: how far physics lies from a point
    after that.
    """
    if not pace.points:
        return None
    physics = [float(np.exp(pace.physics_of(point))) for point in pace.points]
    level = float(np.median([point.seconds / seconds for point, seconds in zip(pace.points, physics, strict=True)]))
    return {
        "level": level,
        "points": [
            {
                "devices": point.devices,
                "per_device": point.per_device,
                "measured_seconds": point.seconds,
                "physics_seconds": seconds,
                "physics_percent": 100 * (seconds / point.seconds - 1),
                "shape_percent": 100 * (level * seconds / point.seconds - 1),
                "place": point.place,
            }
            for point, seconds in zip(pace.points, physics, strict=True)
        ],
    }
