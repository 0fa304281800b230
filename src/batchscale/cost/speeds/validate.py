"""`plan validate`: predicted against published, series by series; nothing of a series tunes what predicts it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from batchscale.cost.clusters.links import Link
from batchscale.cost.speeds.baseline import RULE_PERCENT, curve_speeds, rule_speeds
from batchscale.cost.speeds.priors import Priors, priors_without
from batchscale.cost.speeds.protocol import Mode, Split, refusal, split
from batchscale.cost.speeds.scores import Predicted, summary
from batchscale.cost.speeds.series import Floats, SpeedSeries
from batchscale.cost.speeds.small_form import COVERAGE_PERCENT, predict

FARTHEST_DOUBLINGS = 5
"""Of the hosts beyond the last measured point: the tables behind the priors reach no farther."""


@dataclass(frozen=True)
class Floor:
    """The least that a step can take, by the link: no step is shorter than its all-reduce.

    Args:
        link: between hosts.
        gradient_bytes: of one step.
    """

    link: Link
    gradient_bytes: float

    def log_seconds(self, series: SpeedSeries) -> Floats | None:
        """Of each point, for one example of one device; None where the series does not say its per-device batch."""
        try:
            batch = float(series.name.per_device_batch)
        except ValueError:
            return None
        if batch <= 0:
            return None
        hosts = np.maximum(series.hosts, 1)
        with np.errstate(divide="ignore"):  # one host: no all-reduce between hosts, log 0
            return np.asarray(np.log(self.link.all_reduce_seconds(hosts, self.gradient_bytes) / batch))


@dataclass(frozen=True)
class PredictedSeries:
    """A series that was predicted.

    Args:
        series: all of it.
        parts: what calibrated, what was predicted.
        points: the predictions.
        source_seen: whether the priors were fitted to its source, too.
        floored: whether the link says more than the form at some point.
    """

    series: SpeedSeries
    parts: Split
    points: tuple[Predicted, ...]
    source_seen: bool
    floored: bool


@dataclass(frozen=True)
class Validation:
    """What `plan validate` found.

    Args:
        mode: which points calibrate.
        judged: the series that were predicted.
        refused: eligible series that were not, with the reason.
        ineligible: why other series are none for this mode, with how many.
        priors: by source, what predicted its series.
        floor: by the link, where one was stated.
    """

    mode: Mode
    judged: tuple[PredictedSeries, ...]
    refused: tuple[tuple[SpeedSeries, Split, str], ...]
    ineligible: dict[str, int]
    priors: dict[str, Priors]
    floor: Floor | None

    @property
    def eligible(self) -> int:
        """Points that the protocol asks for."""
        return self.predicted + sum(len(parts.others.devices) for _, parts, _ in self.refused)

    @property
    def predicted(self) -> int:
        """Points that were predicted."""
        return sum(len(one.points) for one in self.judged)

    def scores(self) -> dict[str, Any]:
        """Errors, coverage, baselines, under the names of the document."""
        return summary([one.points for one in self.judged])

    def warnings(self) -> Iterator[str]:
        """What makes the numbers doubtful, one line each."""
        for source in sorted({one.series.name.source for one in self.judged if one.source_seen}):
            yield (
                f"{source}: the shipped priors were fitted to it, too, and too few other series were given to fit "
                f"them anew: its errors are no test; give series of other sources beside it"
            )
        for one in self.judged:
            for devices in one.series.outliers:
                yield (
                    f"{one.series.name.text}: at {devices} devices the speed a device is half of that below, or less: "
                    f"an outlier, predicted as if it were none"
                )
            measured, others = one.parts.measured, one.parts.others
            doublings = float(np.log2(others.hosts[-1] / max(float(measured.hosts[-1]), 1)))
            if doublings > FARTHEST_DOUBLINGS:
                yield (
                    f"{one.series.name.text}: {others.devices[-1]} devices are {doublings:.1f} doublings beyond the "
                    f"last measured point, farther than any table behind the priors: the interval is wide, and may "
                    f"still be too narrow"
                )
            if self.floor is not None and self.floor.log_seconds(others) is None:
                yield f"{one.series.name.text}: states no per_device_batch, so the link says nothing of it"


def validate(series: Sequence[SpeedSeries], mode: Mode, floor: Floor | None = None) -> Validation:
    """Predict every eligible point of every series.

    Args:
        series: of any sources.
        mode: which points calibrate.
        floor: the least that a step can take, by the link.
    """
    judged: list[PredictedSeries] = []
    refused: list[tuple[SpeedSeries, Split, str]] = []
    ineligible: Counter[str] = Counter()
    priors: dict[str, tuple[Priors, bool]] = {}
    for one in series:
        parts = split(one, mode)
        if isinstance(parts, str):
            ineligible[parts] += 1
        elif (why := refusal(one, parts)) is not None:
            refused.append((one, parts, why))
        else:
            source = one.name.source
            if source not in priors:
                priors[source] = priors_without(source, series)
            judged.append(_predicted(one, parts, priors[source], floor))
    return Validation(
        mode,
        tuple(judged),
        tuple(refused),
        dict(ineligible),
        {source: which for source, (which, _) in priors.items()},
        floor,
    )


def _predicted(series: SpeedSeries, parts: Split, priors: tuple[Priors, bool], floor: Floor | None) -> PredictedSeries:
    which, source_seen = priors
    measured, others = parts.measured, parts.others
    logs = predict(which.medians, measured.hosts, measured.log_seconds, others.hosts)
    least = None if floor is None else floor.log_seconds(others)
    floored = least is not None and bool((least > logs[:, 1]).any())
    if least is not None:
        logs = np.maximum(logs, least[:, None])
    devices = np.array(others.devices, dtype=float)
    speeds = devices[:, None] / np.exp(logs)  # (m, 3): slowest last, for seconds rise
    ends = [0, -1]
    baseline = curve_speeds(np.array(measured.devices, dtype=float)[ends], np.array(measured.speeds)[ends], devices)
    rule = rule_speeds(measured.devices[-1], measured.speeds[-1], devices)
    points = tuple(
        Predicted(count, speed, float(middle), (float(low), float(high)), float(naive), float(thumb))
        for count, speed, (high, middle, low), naive, thumb in zip(
            others.devices, others.speeds, speeds, baseline, rule, strict=True
        )
    )
    return PredictedSeries(series, parts, points, source_seen, floored)


def document(validation: Validation) -> dict[str, Any]:
    """The JSON of `plan validate`."""
    floor = validation.floor
    return {
        "mode": validation.mode,
        "unit": "examples a second, all devices together",
        "series": len(validation.judged),
        "eligible": validation.eligible,
        "points": validation.predicted,
        **validation.scores(),
        "interval_percent": COVERAGE_PERCENT,
        "rule_percent_per_doubling": RULE_PERCENT,
        "priors": {source: priors.as_json() for source, priors in validation.priors.items()},
        "floor": None
        if floor is None
        else {
            "gbit_per_second": floor.link.gbit_per_second,
            "microseconds": floor.link.microseconds,
            "gradient_bytes": floor.gradient_bytes,
        },
        "rows": [_row(one, point) for one in validation.judged for point in one.points],
        "refused": [
            {**series.name.as_json(), "devices": list(parts.others.devices), "reason": why}
            for series, parts, why in validation.refused
        ],
        "ineligible": [{"reason": why, "series": count} for why, count in validation.ineligible.items()],
        "warnings": list(validation.warnings()),
    }


def _row(one: PredictedSeries, point: Predicted) -> dict[str, Any]:
    return {
        **one.series.name.as_json(),
        "devices": point.devices,
        "calibrated_on": list(one.parts.measured.devices),
        "measured": point.measured,
        "predicted": point.predicted,
        "interval": list(point.interval),
        "error_percent": point.error_percent,
        "baseline_error_percent": point.baseline_error_percent,
        "rule_error_percent": point.rule_error_percent,
    }
