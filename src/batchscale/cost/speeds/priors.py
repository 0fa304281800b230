"""The priors of the small form: fitted to tables of published speeds by `batchscale plan priors`, never typed in.

Maximum likelihood of the medians, from a fixed start: L and S by all steps beyond the first host, then C by the steps
that leave it. Bounds are the physical ranges.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from importlib import resources
from typing import Any

from batchscale.cost.speeds.series import SpeedSeries, known_fault
from batchscale.cost.speeds.small_form import Medians, log_likelihood, steps_of

FEWEST_SERIES, FEWEST_SOURCES = 10, 2
"""That go on beyond the first host by a step, for a fit."""
MEANING = {
    "doubling": "how much slower a step becomes at each doubling of the hosts",
    "jitter": "how far the cost of one doubling lies from that, up or down",
    "leaving": "what leaving the first host costs beyond its doublings",
}
RANGES = {"doubling": (0.001, 0.3), "jitter": (0.001, 0.3), "leaving": (0.001, 1.0)}
"""Physical: below, a cluster without any cost; above, one that nobody would scale on."""
_START = Medians(0.02, 0.02, 0.05)


@dataclass(frozen=True)
class Priors:
    """What was fitted, and to what.

    Args:
        medians: of the three numbers of the form.
        sources: of the tables.
        series: that had a step beyond the first host, or left it.
        steps: of those series.
    """

    medians: Medians
    sources: tuple[str, ...]
    series: int
    steps: int

    def as_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {**asdict(self), "sources": list(self.sources)}

    def parameters(self) -> list[dict[str, Any]]:
        """Each with its meaning and range, for people."""
        return [
            {"name": name, "median": value, "range": list(RANGES[name]), "meaning": MEANING[name]}
            for name, value in asdict(self.medians).items()
        ]


PRIORS_ENTRIES = tuple(field.name for field in fields(Priors))
"""Of `plan priors --out`."""


def _log(name: str) -> tuple[float, float]:
    low, high = RANGES[name]
    return math.log(low), math.log(high)


def fit_priors(series: Sequence[SpeedSeries]) -> Priors | None:
    """The priors that make the steps of these series most likely; series with a known fault are left out.

    Returns:
        None: fewer than ten series, or two sources, go on beyond the first host.
    """
    from scipy import optimize  # here, not above: a plan takes the shipped priors, and scipy takes longer than it

    sound = [one for one in series if known_fault(one.name) is None]
    steps = [steps_of(one.hosts, one.log_seconds) for one in sound]
    used = [one for one, its in zip(sound, steps, strict=True) if len(its.doublings)]
    onward, leaving = (
        [chosen for its in steps if len((chosen := its.those(leaving=leaves)).doublings)] for leaves in (False, True)
    )
    sources = tuple(sorted({one.name.source for one in used}))
    if len(onward) < FEWEST_SERIES or len(sources) < FEWEST_SOURCES:
        return None

    def misfit_onward(logs: Sequence[float]) -> float:
        medians = replace(_START, doubling=math.exp(logs[0]), jitter=math.exp(logs[1]))
        return -log_likelihood(medians, onward)

    start = [math.log(_START.doubling), math.log(_START.jitter)]
    best = optimize.minimize(misfit_onward, start, method="L-BFGS-B", bounds=[_log("doubling"), _log("jitter")]).x
    medians = replace(_START, doubling=math.exp(best[0]), jitter=math.exp(best[1]))
    if leaving:

        def misfit_leaving(log_leaving: float) -> float:
            return -log_likelihood(replace(medians, leaving=math.exp(log_leaving)), leaving)

        left = optimize.minimize_scalar(misfit_leaving, bounds=_log("leaving"), method="bounded").x
        medians = replace(medians, leaving=math.exp(left))
    return Priors(medians, sources, len(used), sum(len(its.doublings) for its in steps))


@cache
def shipped_priors() -> Priors:
    """Those that come with the package (priors.json)."""
    document = json.loads(resources.files("batchscale.cost.speeds").joinpath("priors.json").read_text(encoding="utf-8"))
    return Priors(Medians(**document["medians"]), tuple(document["sources"]), document["series"], document["steps"])


def priors_without(source: str, series: Sequence[SpeedSeries]) -> tuple[Priors, bool]:
    """What predicts a series of this source: priors that have not seen it.

    The shipped ones where they were fitted without it; else fitted anew, cold, to the other sources among the series.

    Args:
        source: of the series to predict.
        series: all that there are.

    Returns:
        The priors, and whether they have seen the source after all: too few others were there for a fit.
    """
    shipped = shipped_priors()
    if source not in shipped.sources:
        return shipped, False
    fitted = fit_priors([one for one in series if one.name.source != source])
    return (shipped, True) if fitted is None else (fitted, False)
