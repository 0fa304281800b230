"""How far do more processes pay: strong and weak scaling over W processes.

strong: the recipe's kn whatever W;   weak: W times the recipe's workers, kn = W (kn of the recipe), lr by its rule

Source: Amdahl 1967 (strong), Gustafson 1988 (weak); Goyal et al. 2017, section 5.5 (efficiency against W).
"""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal

from batchscale.build.planning import plan_of
from batchscale.errors import UsageError
from batchscale.recipe import Recipe, recipe_from
from batchscale.study.evidence.instrument import measured_alike
from batchscale.study.question import Case, SeededQuestion, flag, read_by
from batchscale.study.rules import check_fits, check_fixed
from batchscale.study.runner.cell import Cell
from batchscale.system.cores import available_cores

STRONG, WEAK = "strong", "weak"
_INTERVALS = 12  # of a run, at least, where it has so many steps


def parse_processes(text: str) -> tuple[int, ...]:
    """Process counts from ``1,2,4,8``.

    Raises:
        UsageError: not whole numbers from 1 on, or not rising.
    """
    words = [word.strip() for word in text.split(",")]
    if not all(re.fullmatch("[0-9]{1,7}", word) and 1 <= int(word) <= 10**6 for word in words):
        raise UsageError(f"--processes={text}: must be whole numbers of at least 1; write for example 1,2,4,8")
    counts = tuple(int(word) for word in words)
    if list(counts) != sorted(set(counts)):
        raise UsageError(
            f"--processes={text}: must rise, each count once; write {','.join(map(str, sorted(set(counts))))}"
        )
    return counts


class Question(SeededQuestion):
    """The process counts, the kinds of scaling, and until when either pays."""

    summary: ClassVar = "speed and error over processes, strong and weak"
    about: ClassVar = """\
Train RECIPE on W processes of this machine (or of a cluster's nodes), one run at a time, and tell how far more pay.

  strong: the recipe's minibatch whatever W
  weak:   every process keeps the recipe's workers: W times the minibatch, the lr by the recipe's rule

  batchscale study scaling digits-cnn minibatch.workers=4 epochs=5 --processes 1,2,4 --mode both

Every process gets the same threads at every W (numerics.threads, or the cores shared by the largest W; on a cluster
--slurm cpus-per-task, or one).
"""
    one_at_a_time: ClassVar = True

    processes: Annotated[tuple[int, ...], read_by(parse_processes)] = flag(
        "W, such as 1,2,4,8, rising", "LIST", default="1,2"
    )
    mode: Literal["strong", "weak", "both"] = flag("which scaling", default="both")
    efficiency_bound: float = flag(
        "of strong scaling, which pays while its efficiency is at least this", "SHARE", default=0.8, gt=0, le=1
    )
    error_bound: float = flag("of error that weak scaling may add", "POINTS", default=0.5, ge=0)
    compare: Literal["unet"] | None = flag("draw a published weak-scaling series beside it", default=None)

    @property
    def modes(self) -> tuple[str, ...]:
        """Strong, weak, or both."""
        return (STRONG, WEAK) if self.mode == "both" else (self.mode,)

    @property
    def with_unet(self) -> bool:
        """Whether the published series is drawn beside."""
        return self.compare == "unet"

    def check(self, recipe: Recipe) -> None:
        """Raise where the question is none of this recipe, whatever the data.

        Raises:
            UsageError: one line.
        """
        check_fixed(recipe)
        k, most = recipe.minibatch.workers, self.processes[-1]
        if STRONG in self.modes and most > k:
            raise UsageError(
                f"--processes={most}: strong scaling spreads the recipe's minibatch.workers={k} over the processes; "
                f"use at most {k}, raise minibatch.workers (and lower minibatch.per_worker), or --mode weak"
            )


def cells(case: Case[Question]) -> list[Cell]:
    """Every mode, W and seed; strong and weak at W = 1 are one run.

    Raises:
        UsageError: one line.
    """
    question, recipe, k = case.question, case.recipe, case.recipe.minibatch.workers
    question.check(recipe)
    if WEAK in question.modes:
        images = tuple(processes * k * recipe.minibatch.per_worker for processes in question.processes)
        check_fits(images, case.training_images, "--processes: weak scaling's minibatch")
    runs = []
    for seed in range(recipe.seed, recipe.seed + question.seeds):  # outermost: a round times every W in turn
        for mode in question.modes:
            for processes in question.processes:
                timed = _timed(case, k if mode == STRONG else k * processes)
                labels = {"mode": mode, "processes": processes, "seed": seed}
                runs.append(Cell(labels, timed.model_copy(update={"seed": seed}), processes))
    return measured_alike(runs, case.training_images)


def threads_of(case: Case[Question]) -> int:
    """Of every process, whatever W: the recipe's, or a task's on a cluster, or the cores shared by the largest W."""
    threads = case.recipe.numerics.threads
    shared = case.task_cores or max(available_cores() // case.question.processes[-1], 1)
    return threads if threads != "auto" else shared


def _timed(case: Case[Question], workers: int) -> Recipe:
    """The recipe with so many workers, the same threads a process at every W, and a dozen intervals to time."""
    content = case.recipe.model_dump(mode="json")
    content["minibatch"]["workers"] = workers
    content["numerics"]["threads"] = threads_of(case)
    if content["execution"]["decode_threads"] == "auto":
        content["execution"]["decode_threads"] = threads_of(case)
    steps = plan_of(recipe_from(content), case.training_images).total_steps
    content["execution"]["log_steps"] = max(min(content["execution"]["log_steps"], steps // _INTERVALS), 1)
    return recipe_from(content)
