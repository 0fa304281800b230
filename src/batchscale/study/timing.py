"""How fast a run was, from its records: the median interval, the first left out (it pays for starting)."""

from __future__ import annotations

import itertools
import json
import statistics
from dataclasses import dataclass
from pathlib import Path

from batchscale.records.files import read_lines

PHASES = ("data", "forward", "backward", "aggregation", "update")
"""As metrics.jsonl names them; aggregation: waiting for it after the last backward pass."""


@dataclass(frozen=True)
class Timing:
    """Of one run.

    Attributes:
        images_per_second: of all processes, median over intervals.
        spread: interquartile range of the intervals' images_per_second over their median; 0 for one interval.
        phase_milliseconds: phase -> time of a step on rank 0, median over intervals.
        device: where it was computed.
    """

    images_per_second: float
    spread: float
    phase_milliseconds: dict[str, float]
    device: str


def timing_of(run: Path) -> Timing | None:
    """The timing of a run's folder; None where its records hold no whole interval."""
    lines = [line for line in read_lines(run / "metrics.jsonl") if "phase_seconds" in line]
    intervals = [(b, b["step"] - a["step"]) for a, b in itertools.pairwise(lines)]
    if not intervals and lines:
        intervals = [(lines[0], lines[0]["step"])]
    if not intervals:
        return None
    speeds = [line["images_per_second"] for line, _ in intervals]
    first, middle, third = statistics.quantiles(speeds, method="inclusive") if len(speeds) > 1 else speeds * 3
    return Timing(
        middle,
        (third - first) / middle,
        {
            phase: 1e3 * statistics.median(line["phase_seconds"][phase] / steps for line, steps in intervals)
            for phase in PHASES
        },
        _device(run),
    )


def _device(run: Path) -> str:
    try:
        return str(json.loads((run / "environment.json").read_text(encoding="utf-8"))["fingerprint"]["device"])
    except (OSError, ValueError, KeyError, TypeError):
        return "unknown"
