"""Spans of time as people write them: 2h, 90m, 1d12h, 45s; in hours inside."""

from __future__ import annotations

import math
import re

_HOURS = {"d": 24.0, "h": 1.0, "m": 1 / 60, "s": 1 / 3600}
_SPAN = re.compile(r"(?:(?:\d+(?:\.\d*)?|\.\d+)[dhms])+")
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)([dhms])")


def parse_span(text: str) -> float | None:
    """Hours; None where it is no span above 0."""
    if not _SPAN.fullmatch(text):
        return None
    hours = sum(float(number) * _HOURS[unit] for number, unit in _PART.findall(text))
    return hours if 0 < hours < math.inf else None


def span(hours: float, up: bool = False) -> str:
    """In two units at most, such as 3h12m; nothing is written that ``parse_span`` does not read.

    Args:
        hours: above 0.
        up: rounded up, so that it is no shorter than what it stands for.
    """
    for unit, smaller in (("d", "h"), ("h", "m"), ("m", "s")):
        if hours >= _HOURS[unit]:
            parts = hours / _HOURS[smaller]
            whole = math.ceil(parts - 1e-9) if up else round(parts)
            first, rest = divmod(whole, round(_HOURS[unit] / _HOURS[smaller]))
            return f"{first}{unit}" + (f"{rest}{smaller}" if rest else "")
    seconds = hours * 3600
    return f"{math.ceil(seconds * 10) / 10:g}s" if up else f"{seconds:.2g}s"
