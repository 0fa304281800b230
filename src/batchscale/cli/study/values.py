"""Numbers on the command lines of studies."""

from __future__ import annotations

import argparse
import math


def not_negative_number(text: str) -> float:
    """A number of at least 0, for argparse."""
    return _number(text, "a number of at least 0", lowest=0.0)


def positive_number(text: str) -> float:
    """A number above 0, for argparse."""
    return _number(text, "a number above 0", lowest=math.nextafter(0.0, 1.0))


def share(text: str) -> float:
    """A number above 0 and at most 1, for argparse."""
    return _number(text, "a number above 0 and at most 1", lowest=math.nextafter(0.0, 1.0), highest=1.0)


def _number(text: str, rule: str, lowest: float, highest: float = 1e9) -> float:
    try:
        value = float(text) if text.isascii() else math.nan
    except ValueError:
        value = math.nan
    if not lowest <= value <= highest:
        raise argparse.ArgumentTypeError(f"{text!r} must be {rule}")
    return value
