"""A table of what was needed at each minibatch -> what a plan takes of it, where the form holds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from batchscale.cost.goal.epochs import EpochsFit, fit_epochs, read_workloads
from batchscale.cost.planning.published import PublishedWorkload
from batchscale.cost.table import read_rows
from batchscale.errors import DataError
from batchscale.hyperbola import FEWEST_POINTS
from batchscale.words import counted, did_you_mean, shown

_LEVEL = 0.95  # of the fit's intervals


def workload_of_table(path: Path, name: str) -> PublishedWorkload:
    """One workload of a table.

    Args:
        path: of the table.
        name: of the workload; "" where the table has one alone.

    Raises:
        DataError: there is no such workload, or the form does not hold.
    """
    workloads = {one.benchmark: one for one in read_workloads(path)}
    if not name and len(workloads) == 1:
        name = next(iter(workloads))
    if name not in workloads:
        named = f"no workload {shown(name)}" if name else f"{len(workloads)} workloads"
        raise DataError(
            f"--goal={shown(str(path))}: the table has {named}; {did_you_mean(name, workloads)}write "
            f"{shown(str(path))}:NAME, of {', '.join(map(shown, workloads))}"
        )
    workload = of_fit(fit_epochs(workloads[name]), "")
    if isinstance(workload, str):
        raise DataError(
            f"--goal: {shown(name)}: E(B) = E_min (1 + B / B_crit) cannot say its epochs: {workload}; give --goal "
            f"EPOCHS and --critical B"
        )
    return workload


def accepted(fits: Sequence[EpochsFit], path: Path) -> list[PublishedWorkload]:
    """Those of a table that a plan can take.

    Args:
        fits: of its workloads.
        path: of the table, whose column source says where each is from.
    """
    sources = {row.text("benchmark"): row.text("source") for row in read_rows(path, ("benchmark",))}
    workloads = [of_fit(fitted, sources[fitted.workload.benchmark]) for fitted in fits]
    return [workload for workload in workloads if not isinstance(workload, str)]


def of_fit(fitted: EpochsFit, source: str) -> PublishedWorkload | str:
    """What a plan takes of a fit, or why it takes nothing, in words."""
    workload, hyperbola = fitted.workload, fitted.hyperbola
    count = len(workload.minibatches)
    if hyperbola is None:
        return f"{counted(count, 'minibatch')}, and fewer than {FEWEST_POINTS} do not show whether it holds"
    if fitted.refusal is not None:
        return fitted.refusal
    critical, least = hyperbola.critical_minibatch, hyperbola.images_min.value
    if critical.value is None or least is None:
        return "its minibatches only bound B_crit"
    middle = math.exp(sum(map(math.log, workload.minibatches)) / count)
    return PublishedWorkload(
        workload.benchmark,
        source,
        workload.unit,
        float(workload.minibatches[0]),
        float(workload.minibatches[-1]),
        middle,
        least * (1 + middle / critical.value),
        math.log1p(hyperbola.scatter_percent / 100) * math.sqrt(1 + 1 / count),
        critical.value,
        critical.low,
        critical.high,
        _LEVEL,
    )
