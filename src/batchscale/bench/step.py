"""batchscale bench step: a training step of batchscale beside its ceiling and its peers, measured in turn."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from pathlib import Path

from batchscale.bench.assignment import OPTIMIZERS, Assignment
from batchscale.bench.contender import Contender
from batchscale.bench.findings import findings_of
from batchscale.bench.peers import PACKAGES, PEERS
from batchscale.bench.results import document
from batchscale.bench.rounds import Budget, Rounds
from batchscale.bench.torchvision_files import lay_out, torchvision_name
from batchscale.bench.turns import stop_check
from batchscale.build.build import validate
from batchscale.errors import RecipeError, UsageError
from batchscale.launch.signals import StopSignals
from batchscale.recipe import Recipe, recipe_from
from batchscale.records.findings import Findings
from batchscale.system.cores import available_cores
from batchscale.system.temporary import temporary_folder
from batchscale.words import counted

OURS = ("ceiling", "batchscale", "batchscale_exact")
BUDGET = Budget()


def bench_step(
    recipe: Recipe,
    name: str,
    data_folder: Path | None,
    processes: int,
    *,
    budget: Budget = BUDGET,
    say: Callable[[str], None] = lambda line: None,
) -> Findings:
    """Measure every contender on this recipe.

    Args:
        recipe: resolved.
        name: of the recipe, for the document.
        data_folder: of the data sets.
        processes: W.
        budget: how long to measure.
        say: told of the progress.

    Returns:
        Its result is the document of ``batchscale bench step --json``.

    Raises:
        UsageError: a recipe that cannot be measured.
        BenchStopped: a signal to stop was received.
        ProcessError: a process of the ceiling or of batchscale died.
    """
    start = time.monotonic()
    recipe, notes = _comparable(recipe, processes)
    validate(recipe, data_folder, processes)
    with StopSignals() as signals, temporary_folder("batchscale-bench-") as scratch:
        lay_out(recipe.data.name, data_folder, Path(scratch) / "torchvision")
        assignment = Assignment(
            recipe.model_dump(mode="json"), str(data_folder.resolve()) if data_folder else None,
            torchvision_name(recipe.data.name), f"{scratch}/torchvision", processes, _threads(recipe, processes),
        )  # fmt: skip
        assignment.check()
        rounds = Rounds(OURS, notes, say)
        check = stop_check(signals)
        try:
            for contender in _chosen(assignment, notes):
                rounds.start(Contender(contender, assignment, Path(scratch), check))
            rounds.measure(budget, start)
            return findings_of(document(name, assignment, rounds.running, notes))
        finally:
            rounds.close()


def _comparable(recipe: Recipe, processes: int) -> tuple[Recipe, list[str]]:
    """The recipe as all contenders can train it, with a note for every entry that had to change."""
    images = recipe.minibatch.workers * recipe.minibatch.per_worker
    if images % processes:
        raise UsageError(
            f"--processes={processes}: must divide the minibatch of {counted(images, 'image')} (the peers give every "
            f"process as many); use a divisor of {images}"
        )
    if recipe.precision != "fp32":
        raise RecipeError(f"precision={recipe.precision}: bench step compares float32 training; use precision=fp32")
    entry = recipe.optimizer
    if entry.name not in OPTIMIZERS or entry.clip_norm is not None or entry.gradient_noise:
        raise RecipeError(
            f"optimizer.name={entry.name}: bench step compares plain momentum SGD or AdamW; "
            f"use optimizer.name=sgd or adamw, without clip_norm and gradient_noise"
        )
    if recipe.execution.device == "cuda":
        raise RecipeError("execution.device=cuda: bench step compares training on CPUs; use execution.device=cpu")
    notes = []
    changes = ["execution.device=cpu"]
    if recipe.minibatch.growth.kind != "none":
        changes.append("minibatch.growth={kind: none}")
        notes.append("the minibatch does not grow: all contenders take steps of its first size")
    if recipe.data.augment.flip or recipe.data.augment.crop != "none":
        changes += ["data.augment.flip=false", "data.augment.crop=none"]
        notes.append("augmentation is off for all: the peers on tensors have none")
    return recipe_from(recipe.model_dump(), changes), notes


def _threads(recipe: Recipe, processes: int) -> int:
    """Of every process of every contender: the recipe's, else the cores shared by the processes."""
    if recipe.numerics.threads != "auto":
        return recipe.numerics.threads
    return max(available_cores() // processes, 1)


def _chosen(assignment: Assignment, notes: list[str]) -> list[str]:
    """The contenders that this machine and this data set allow, with a note for every one left out."""
    names = list(OURS)
    for peer in PEERS:
        package = PACKAGES.get(peer, "torch")
        if importlib.util.find_spec(package) is None:
            notes.append(f"{peer} is left out: {package} is not installed (pip install 'batchscale[peers]')")
        elif peer == "ddp_torchvision" and not assignment.torchvision_name:
            notes.append(f"{peer} is left out: torchvision has no class for data.name={assignment.recipe.data.name}")
        else:
            names.append(peer)
    return names
