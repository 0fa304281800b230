"""How fast a run was, from its records: the median interval, each attempt's first left out (it pays for starting)."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchscale.records.files import is_number
from batchscale.records.run import RunRecords, speed_entry

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
        nodes: of a cluster, as Slurm lists them; "" elsewhere.
    """

    images_per_second: float
    spread: float
    phase_milliseconds: dict[str, float]
    device: str
    nodes: str = ""


@dataclass(frozen=True)
class _Interval:
    """Between two lines of metrics, or from the start of an attempt to its first line."""

    images_per_second: float
    phase_milliseconds: dict[str, float]
    starts: bool


def timing_of(run: Path) -> Timing | None:
    """The timing of a run's folder; None where its records hold no whole interval."""
    records = RunRecords(run)
    attempts = records.attempts()
    whole = list(_intervals(records, _first_steps(attempts)))
    intervals = [interval for interval in whole if not interval.starts] or whole
    if not intervals:
        return None
    speeds = [interval.images_per_second for interval in intervals]
    first, middle, third = statistics.quantiles(speeds, method="inclusive") if len(speeds) > 1 else speeds * 3
    phases = {phase: statistics.median(i.phase_milliseconds[phase] for i in intervals) for phase in PHASES}
    device, nodes = (_recorded(attempts, *place) for place in (("fingerprint", "device"), ("slurm", "nodes")))
    return Timing(middle, (third - first) / middle, phases, device or "unknown", nodes)


def _recorded(attempts: Sequence[Mapping[str, Any]], part: str, name: str) -> str:
    """An entry of the newest attempt's record; "" where it is not there."""
    content = attempts[0].get(part) if attempts else None
    return str(content.get(name, "")) if isinstance(content, dict) else ""


def _intervals(records: RunRecords, first_steps: set[float]) -> Iterator[_Interval]:
    """The whole lines of metrics; a damaged one is passed over."""
    previous: float = 0
    for line in records.metrics():
        step, speed, phases = line.get("step"), line.get(speed_entry(line)), line.get("phase_seconds")
        if not (is_number(step) and is_number(speed) and speed > 0 and isinstance(phases, dict)):
            continue
        steps = line.get("interval_steps", step - previous)  # the difference: a folder that an earlier version wrote
        previous = step
        if is_number(steps) and steps > 0 and all(is_number(phases.get(phase)) for phase in PHASES):
            milliseconds = {phase: 1e3 * phases[phase] / steps for phase in PHASES}
            yield _Interval(speed, milliseconds, any(step - steps <= first < step for first in first_steps))


def _first_steps(attempts: Sequence[Mapping[str, Any]]) -> set[float]:
    """The steps from which the attempts of a run went on."""
    return {0} | {attempt["from_step"] for attempt in attempts if is_number(attempt.get("from_step"))}
