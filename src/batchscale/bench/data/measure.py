"""batchscale bench data: from a data set to minibatches ready to train on, beside other libraries' ways, in turn."""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from batchscale.bench.contender import Contender
from batchscale.bench.data.assignment import DataAssignment
from batchscale.bench.data.contenders import INSTALLED_BY, OURS, PACKAGES, TORCHVISION
from batchscale.bench.data.document import document
from batchscale.bench.data.prepare import Preparation
from batchscale.bench.findings import findings_of
from batchscale.bench.rounds import Budget, Rounds
from batchscale.bench.turns import stop_check
from batchscale.errors import UsageError
from batchscale.launch.signals import StopSignals
from batchscale.recipe import Recipe
from batchscale.records.findings import Findings
from batchscale.system.temporary import socket_place, temporary_folder

_PREFIX = "batchscale-bench-"
BUDGET = Budget(total_seconds=120.0, shortest_seconds=0.3)


def bench_data(
    recipe: Recipe,
    name: str,
    data_folder: Path | None,
    threads: int,
    *,
    own_photographs: bool = False,
    budget: Budget = BUDGET,
    say: Callable[[str], None] = lambda line: None,
) -> Findings:
    """Measure every contender on this recipe's training images.

    Args:
        recipe: resolved.
        name: of the recipe, for the document.
        data_folder: of the data sets.
        threads: that decode, or loader workers, of each contender.
        own_photographs: take the photographs that come with scikit-learn in place of the recipe's data.
        budget: how long to measure.
        say: told of the progress.

    Returns:
        Its result is the document of ``batchscale bench data --json``.

    Raises:
        UsageError: a recipe that cannot be measured, data that are missing.
        BenchStopped: a signal to stop was received.
        ProcessError: a process of batchscale died.
    """
    begun = time.monotonic()
    if sys.platform != "linux":
        raise UsageError(f"bench data: must run on Linux, not {sys.platform}: its /proc tells the loaders' CPU seconds")
    notes: list[str] = []
    with (
        StopSignals() as signals,
        temporary_folder(_PREFIX) as scratch,
        temporary_folder(_PREFIX, socket_place()) as sockets,  # the loaders' temporary folder: workers have some there
    ):
        rounds, check = Rounds(OURS, notes, say), stop_check(signals)
        preparation = Preparation(threads, Path(scratch), notes, check)
        say("preparing the images")
        prepared = preparation.photographs(recipe) if own_photographs else preparation.of_recipe(recipe, data_folder)
        try:
            for assignment in _chosen(prepared.assignments, notes):
                rounds.start(
                    Contender(assignment.contender, assignment, Path(sockets), check, kind="data", frozen=True)
                )
            rounds.measure(budget, begun, multiple=threads)
            return findings_of(document(name, prepared, rounds.running, notes))
        finally:
            rounds.close()


def _chosen(assignments: Sequence[DataAssignment], notes: list[str]) -> list[DataAssignment]:
    """Those that this machine and this data set allow, with a note for every one left out."""
    chosen = []
    for assignment in assignments:
        name, module = assignment.contender, PACKAGES.get(assignment.contender, "torch")
        if importlib.util.find_spec(module) is None:
            package = INSTALLED_BY[module]
            notes.append(f"{name} is left out: {package} is not installed (pip install {package})")
        elif name == TORCHVISION and not assignment.torchvision_name:
            notes.append(f"{name} is left out: torchvision has no class for data.name={assignment.recipe.data.name}")
        else:
            chosen.append(assignment)
    return chosen
