"""batchscale bench step: a training step of batchscale beside its ceiling and its peers, measured in turn."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from batchscale.bench.contender import Block, Contender
from batchscale.bench.peers import PACKAGES, PEERS
from batchscale.bench.results import document
from batchscale.bench.task import Task
from batchscale.bench.torchvision_files import lay_out, torchvision_name
from batchscale.bench.turns import in_turn, stop_check
from batchscale.engine.build import validate
from batchscale.engine.signals import StopSignals
from batchscale.errors import ProcessError, RecipeError, UsageError
from batchscale.recipe import Recipe, recipe_from
from batchscale.words import counted

OURS = ("ceiling", "batchscale", "batchscale_exact")
_FIRST_STEPS = 2  # of the first of two warm-up blocks
_WARM_SECONDS = 1.0  # of the second


@dataclass(frozen=True)
class Budget:
    """How long to measure.

    Args:
        total_seconds: of the whole benchmark, starting the processes included.
        block_seconds: of one contender's turn.
        min_rounds, max_rounds: rounds, whatever the time says.
    """

    total_seconds: float = 200.0
    block_seconds: float = 2.0
    min_rounds: int = 5
    max_rounds: int = 40


@dataclass
class Measured:
    """One contender, the steps of its turn, and its blocks, one a round."""

    contender: Contender
    steps: int = 1
    seconds_per_step: float = 0.0
    blocks: list[Block] = field(default_factory=list)


def bench_step(
    recipe: Recipe,
    name: str,
    data_folder: Path | None,
    processes: int,
    *,
    budget: Budget = Budget(),
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Measure every contender on this recipe.

    Args:
        recipe: resolved.
        name: of the recipe, for the document.
        data_folder: of the data sets.
        processes: W.
        budget: how long to measure.
        say: told of the progress.

    Returns:
        The document of ``batchscale bench step --json``.

    Raises:
        UsageError: a recipe that cannot be measured.
        Stopped: SIGINT or SIGTERM was received.
        ProcessError: a process of the ceiling or of batchscale died.
    """
    start = time.monotonic()
    recipe, notes = _comparable(recipe, processes)
    validate(recipe, data_folder, processes)
    with StopSignals() as signals, tempfile.TemporaryDirectory(prefix="batchscale-bench-") as scratch:
        lay_out(recipe.data.name, data_folder, Path(scratch) / "torchvision")
        task = Task(
            recipe.model_dump(mode="json"), str(data_folder.resolve()) if data_folder else None,
            torchvision_name(recipe.data.name), f"{scratch}/torchvision", processes, _threads(recipe, processes),
        )  # fmt: skip
        running: list[Measured] = []
        check = stop_check(signals)
        try:
            for contender in _chosen(task, notes):
                say(f"starting {contender}")
                running.append(Measured(Contender(contender, task, Path(scratch), check)))
                _warm_up(running[-1], running, notes, say)
            _measure(running, budget, start, notes, say)
            return document(name, task, running, notes)
        finally:
            for measured in running:
                measured.contender.close()


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
    if entry.name != "sgd" or entry.clip_norm is not None or entry.gradient_noise:
        raise RecipeError(
            f"optimizer.name={entry.name}: bench step compares plain momentum SGD; "
            f"use optimizer.name=sgd without clip_norm and gradient_noise"
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
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(cores // processes, 1)


def _chosen(task: Task, notes: list[str]) -> list[str]:
    """The contenders that this machine and this data set allow, with a note for every one left out."""
    names = list(OURS)
    for peer in PEERS:
        package = PACKAGES.get(peer, "torch")
        if importlib.util.find_spec(package) is None:
            notes.append(f"{peer} is left out: {package} is not installed (pip install 'batchscale[peers]')")
        elif peer == "ddp_torchvision" and not task.torchvision_name:
            notes.append(f"{peer} is left out: torchvision has no class for data.name={task.recipe.data.name}")
        else:
            names.append(peer)
    return names


def _warm_up(measured: Measured, running: list[Measured], notes: list[str], say: Callable[[str], None]) -> None:
    """Start a contender, alone on the machine, and time its steps; a peer that fails is left out with a note."""
    contender = measured.contender
    with _peer_may_fail(measured, running, notes, say):
        contender.start()
        contender.ready()
        for seconds in (0.0, _WARM_SECONDS):
            steps = max(round(seconds / measured.seconds_per_step), 1) if seconds else _FIRST_STEPS
            measured.seconds_per_step = contender.block(steps).wall_seconds / steps


@contextlib.contextmanager
def _peer_may_fail(
    measured: Measured, running: list[Measured], notes: list[str], say: Callable[[str], None]
) -> Iterator[None]:
    try:
        yield
    except ProcessError as error:
        if measured.contender.name in OURS:
            raise
        say(str(error))
        notes.append(f"left out: {error}")
        running.remove(measured)
        measured.contender.close()


def _measure(
    running: list[Measured], budget: Budget, start: float, notes: list[str], say: Callable[[str], None]
) -> None:
    """The rounds: all contenders once a round, in an order that changes from round to round."""
    for measured in running:
        measured.steps = max(round(budget.block_seconds / measured.seconds_per_step), 1)
    round_seconds = sum(m.steps * m.seconds_per_step for m in running)
    left = budget.total_seconds - (time.monotonic() - start)
    rounds = min(max(int(left / round_seconds), budget.min_rounds), budget.max_rounds)
    for number in range(rounds):
        say(f"round {number + 1} of {rounds} ({round_seconds:.0f} s each)")
        for measured in in_turn(running, number):
            with _peer_may_fail(measured, running, notes, say):
                expected = measured.steps * measured.seconds_per_step
                measured.blocks.append(measured.contender.block(measured.steps, expected))
