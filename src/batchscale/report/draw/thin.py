"""Long series made short: of every stretch its lowest and highest point, and its first gap.

A spike stays; the records keep every point.
"""

from __future__ import annotations

from batchscale.records.findings import Series

MOST_POINTS = 400
"""Of a drawn series."""
_KEPT_OF_STRETCH = 3


def thinned(series: Series, most: int = MOST_POINTS) -> Series:
    """The series with at most so many points, its ends among them."""
    count = len(series.x)
    if count <= most:
        return series
    stretches = (most - 2) // _KEPT_OF_STRETCH
    kept = {0, count - 1}
    for number in range(stretches):
        within = range(number * count // stretches, (number + 1) * count // stretches)
        values = [(series.y[i], i) for i in within if series.y[i] is not None]
        if values:
            kept |= {min(values)[1], max(values)[1]}
        kept |= {next((i for i in within if series.y[i] is None), 0)}
    return _only(series, sorted(kept))


def _only(series: Series, places: list[int]) -> Series:
    lists = {name: getattr(series, name) for name in ("x", "y", "low", "high", "runs")}
    return series.model_copy(update={name: tuple(v[i] for i in places) if v else () for name, v in lists.items()})


def evenly(count: int, most: int) -> list[int]:
    """At most so many places of a list, evenly spread, both ends among them."""
    if count <= most:
        return list(range(count))
    return [round(place * (count - 1) / (most - 1)) for place in range(most)]
