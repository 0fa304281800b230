"""Blocks -> the JSON document of ``bench step``: rows, paired ratios, conditions."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import torch

from batchscale.bench.assignment import Assignment
from batchscale.bench.documents import Rate, StepDocument
from batchscale.bench.peers import DOCUMENTED, TUNED
from batchscale.bench.rounds import Measured
from batchscale.bench.statistics import median_interval, ratios_of, spread, verdict_of
from batchscale.records.provenance import cpu_model, version_of
from batchscale.system.cores import available_cores

UNSTEADY_RANGE = 0.1
"""An interquartile range of a ratio above this says: not measurable now."""

_PACKAGES = ("torchvision", "lightning", "accelerate")


def document(name: str, assignment: Assignment, running: Sequence[Measured], notes: Sequence[str]) -> StepDocument:
    """What ``batchscale bench step --json`` prints.

    Args:
        name: of the recipe.
        assignment: what was trained.
        running: every contender with its blocks, one a round, in the same order of rounds.
        notes: what was left out or changed.
    """
    images = assignment.minibatch_images
    wall = {m.contender.name: [b.steps * images / b.wall_seconds for b in m.blocks] for m in running}
    cpu = {m.contender.name: [b.steps * images / b.cpu_seconds for b in m.blocks] for m in running}
    best = fastest_of(DOCUMENTED, wall)
    pairs: dict[str, tuple[str, str | None]] = {
        "to_ceiling": ("batchscale", "ceiling"),
        "to_best_documented_peer": ("batchscale", best),
        "to_tuned_peer": ("batchscale", TUNED),
        "exact_to_fast": ("batchscale_exact", "batchscale"),
    }
    return StepDocument(
        recipe=name,
        processes=assignment.processes,
        minibatch=minibatch_entry(assignment),
        rows=[row(name, wall[name], cpu[name]) for name in wall],
        **ratio_entries(wall, cpu, pairs, judged=("to_best_documented_peer", "to_tuned_peer")),
        best_documented_peer=best,
        conditions=_conditions(assignment, running),
        notes=list(notes),
    )


def minibatch_entry(assignment: Assignment) -> dict[str, int]:
    """k, n and kn."""
    minibatch = assignment.recipe.minibatch
    return {
        "workers": minibatch.workers,
        "per_worker": minibatch.per_worker,
        "images": assignment.minibatch_images,
    }


def fastest_of(names: Iterable[str], wall: Mapping[str, Sequence[float]]) -> str | None:
    """The contender of these with the highest median of images/s; None where none was measured."""
    measured = [name for name in names if name in wall]
    return max(measured, key=lambda name: spread(wall[name]).median) if measured else None


def ratio_entries(
    wall: Mapping[str, Sequence[float]],
    cpu: Mapping[str, Sequence[float]],
    pairs: Mapping[str, tuple[str, str | None]],
    relative: bool = False,
    judged: Collection[str] = (),
) -> dict[str, Any]:
    """A document's paired ratios.

    Args:
        wall, cpu: contender -> images per second, and per CPU-second, of every block.
        pairs: a ratio's name -> whose, to whose; null where one of them was not measured.
        relative: whether a ratio is unsteady by its range as a part of it: for ratios far above 1.
        judged: names of the ratios that must not be below 1.
    """
    by_wall = {key: _ratios(wall, *pair) for key, pair in pairs.items()}
    by_cpu = {key: _ratios(cpu, *pair) for key, pair in pairs.items()}
    spreads = {key: spread(ratios) for key, ratios in by_wall.items() if ratios}
    return {
        **_summary(by_wall, ""),
        **_summary(by_cpu, "_per_cpu_second"),
        "not_measurable_now": [
            key for key, s in spreads.items() if s.iqr > UNSTEADY_RANGE * (s.median if relative else 1)
        ],
        "verdicts": {key: verdict_of(by_wall[key]) for key in judged if by_wall[key]},
    }


def _ratios(values: Mapping[str, Sequence[float]], above: str, below: str | None) -> list[float]:
    """One a round; [] where one of the two was not measured."""
    if below is None or above not in values or below not in values:
        return []
    return ratios_of(values[above], values[below])


def _summary(ratios: Mapping[str, list[float]], of: str) -> dict[str, Any]:
    """Median, interquartile range and the median's interval of every ratio."""
    spreads = {key: spread(values) if values else None for key, values in ratios.items()}
    intervals = {key: median_interval(values) for key, values in ratios.items()}
    return {
        f"ratios{of}": {key: s and round(s.median, 4) for key, s in spreads.items()},
        f"ratio_iqr{of}": {key: s and round(s.iqr, 4) for key, s in spreads.items()},
        f"ratio_interval{of}": {key: ends and [round(end, 4) for end in ends] for key, ends in intervals.items()},
    }


def row(name: str, wall: Sequence[float], cpu: Sequence[float]) -> Rate:
    """A contender's medians, and the interquartile range of its images per second."""
    return Rate(
        name=name,
        images_per_second=round(spread(wall).median, 1),
        images_per_cpu_second=round(spread(cpu).median, 1),
        iqr=round(spread(wall).iqr, 1),
    )


def machine_conditions() -> dict[str, Any]:
    """What a measurement was taken on and when, at its end."""
    return {
        "cpu": cpu_model(),
        "cores": available_cores(),
        "load_average": round(os.getloadavg()[0], 2),
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def _conditions(assignment: Assignment, running: Sequence[Measured]) -> dict[str, Any]:
    notes = {m.contender.name: m.contender.notes for m in running}
    return {
        **machine_conditions(),
        **{package: version_of(package) for package in _PACKAGES},
        "threads": assignment.threads,
        "examples": assignment.task.examples,
        "rounds": len(running[0].blocks),
        "steps_per_block": {m.contender.name: m.steps for m in running},
        "ceiling": notes["ceiling"],
        "micro_batch": notes["batchscale"]["micro_batch"],
        "micro_batch_exact": notes["batchscale_exact"]["micro_batch"],
    }
