"""What predicts, each number with its meaning, its range and where it is from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from batchscale.cost.clusters.cluster import ClusterFile
from batchscale.cost.planning.goal import EpochGoal
from batchscale.cost.planning.pace import RATE_SOURCE, RATE_SPREAD, RATIO_SPREAD, Pace
from batchscale.cost.planning.risks import CHECKPOINT_SECONDS, RESTART_SECONDS
from batchscale.cost.ranges import CRITICAL, EPOCHS, OF_CLUSTER
from batchscale.cost.speeds.priors import MEANING, RANGES, shipped_priors


def parameters_of(cluster: ClusterFile, goal: EpochGoal, pace: Pace) -> list[dict[str, Any]]:
    """All of them.

    Args:
        cluster: its file.
        goal: epochs.
        pace: of a step.
    """
    return [*_of_cluster(cluster), *_of_small_form(pace), *_of_goal(goal)]


def _entry(name: str, value: float, unit: str, span: str, meaning: str, source: str) -> dict[str, Any]:
    return {"name": name, "value": value, "unit": unit, "range": span, "meaning": meaning, "source": source}


def _of_cluster(cluster: ClusterFile) -> Iterator[dict[str, Any]]:
    for name, limits in OF_CLUSTER.items():
        entry = getattr(cluster, name)
        if limits.meaning and entry is not None:
            yield _entry(name, entry.value, limits.unit, limits.span, limits.meaning, entry.source)
    if cluster.device_mtbf_hours is not None:
        yield _entry("checkpoint", CHECKPOINT_SECONDS, "s", "1 to 600", "to write one", "stated")
        yield _entry("restart", RESTART_SECONDS, "s", "10 to 3,600", "from a failure to the next step", "stated")


def _of_small_form(pace: Pace) -> Iterator[dict[str, Any]]:
    """Their scatter stands in the intervals; where points lead, their medians in the step times, too."""
    priors = shipped_priors()
    source = f"plan priors, {priors.series} series of {len(priors.sources)} sources"
    for parameter in priors.parameters():
        low, high = RANGES[parameter["name"]]
        span = f"{100 * low:g} to {100 * high:g}"
        yield _entry(parameter["name"], 100 * parameter["median"], "%", span, MEANING[parameter["name"]], source)
    if pace.measured:
        yield _entry(
            "ratio", 100 * RATIO_SPREAD, "%", "0 to 50", "of physics' ratio, at a doubling of a device's examples",
            "stated",
        )  # fmt: skip
    elif pace.rate_measured:
        yield _entry("rate", 100 * RATIO_SPREAD, "%", "0 to 50", "of a device's rate, measured here", "stated")
    else:
        yield _entry("rate", 100 * RATE_SPREAD, "%", "0 to 100", "of a rate that was not measured here", RATE_SOURCE)


def _of_goal(goal: EpochGoal) -> Iterator[dict[str, Any]]:
    meaning = f"{EPOCHS.meaning} of {goal.minibatch:,.0f}"
    yield _entry("epochs", goal.epochs, EPOCHS.unit, EPOCHS.span, meaning, goal.words)
    if goal.critical is not None:
        low, high = ("no bound" if end is None else f"{end:,.0f}" for end in (goal.critical.low, goal.critical.high))
        yield _entry(
            "critical_minibatch", goal.critical.value, CRITICAL.unit, f"{low} to {high}", CRITICAL.meaning,
            goal.critical.words,
        )  # fmt: skip
