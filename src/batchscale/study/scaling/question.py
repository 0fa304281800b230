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
WAYS = ("plain", "warmup", "decay", "warmup+decay")
PUBLISHED_WORKERS = (1, 2, 4, 8)
_INTERVALS = 12  # of a run, at least, where it has so many steps


def parse_processes(text: str, setting: str = "--processes") -> tuple[int, ...]:
    """Counts of processes, or of workers, from ``1,2,4,8``.

    Raises:
        UsageError: not whole numbers from 1 on, or not rising.
    """
    words = [word.strip() for word in text.split(",")]
    if not all(re.fullmatch("[0-9]{1,7}", word) and 1 <= int(word) <= 10**6 for word in words):
        raise UsageError(f"{setting}={text}: must be whole numbers of at least 1; write for example 1,2,4,8")
    counts = tuple(int(word) for word in words)
    if list(counts) != sorted(set(counts)):
        raise UsageError(
            f"{setting}={text}: must rise, each count once; write {','.join(map(str, sorted(set(counts))))}"
        )
    return counts


def parse_ways(text: str) -> tuple[str, ...]:
    """Ways of the lr from ``plain,warmup,decay``.

    Raises:
        UsageError: another name, or one twice.
    """
    ways = tuple(word.strip() for word in text.split(","))
    if not set(ways) <= set(WAYS) or len(set(ways)) < len(ways):
        raise UsageError(f"--ways={text}: must name ways, each once, of {', '.join(WAYS)}; write plain,warmup,decay")
    return ways


def parse_fractions(text: str) -> tuple[float, ...]:
    """Parts of the training set from ``0.25,0.5,1``.

    Raises:
        UsageError: not numbers above 0 up to 1, or not rising.
    """
    words = [word.strip() for word in text.split(",")]
    shares = tuple(float(word) if re.fullmatch(r"[0-9]*\.?[0-9]+", word) else 0.0 for word in words)
    if list(shares) != sorted(set(shares)) or not 0 < shares[0] <= shares[-1] <= 1:
        raise UsageError(f"--fractions={text}: must be rising numbers above 0 up to 1; write for example 0.25,0.5,1")
    return shares


class Question(SeededQuestion):
    """The process counts, the kinds of scaling, and until when either pays."""

    summary: ClassVar = "speed and error, or another score, over processes, strong and weak"
    about: ClassVar = """\
Train RECIPE on W processes of this machine (or of a cluster's nodes), one run at a time, and tell how far more pay.

  strong: the recipe's minibatch whatever W
  weak:   every process keeps the recipe's workers: W times the minibatch, the lr by the recipe's rule

  batchscale study scaling digits-cnn minibatch.workers=4 epochs=5 --processes 1,2,4 --mode both

With --workers k (of a segmentation recipe also with --compare unet) it is about what the logical workers make of the
score, not about speed: one process, and k workers stand for as many GPUs.

  strong: kn as in the recipe, k workers of kn / k;   weak: k workers of the recipe's n, the lr by the recipe's rule

  batchscale study scaling nuclei-unet --compare unet --fractions 0.25,0.5,1 --data DIR

Every process gets the same threads at every W (numerics.threads, or the cores shared by the largest W; on a cluster
--slurm cpus-per-task, or one).
"""

    processes: Annotated[tuple[int, ...], read_by(parse_processes)] = flag(
        "W, such as 1,2,4,8, rising", "LIST", default="1,2"
    )
    mode: Literal["strong", "weak", "both"] = flag("which scaling", default="both")
    efficiency_bound: float = flag(
        "of strong scaling, which pays while its efficiency is at least this", "SHARE", default=0.8, gt=0, le=1
    )
    error_bound: float | None = flag(
        "how much worse weak scaling may make the score (the error; of another task its own), in its unit (default: "
        "0.5 points of a score in %, else 1 % of that at the smallest W or k)",
        "DIFFERENCE",
        default=None,
        ge=0,
    )
    compare: Literal["unet"] | None = flag("draw a published weak-scaling series beside it", default=None)

    workers: Annotated[tuple[int, ...], read_by(lambda text: parse_processes(text, "--workers"))] | None = flag(
        "k, such as 1,2,4,8, rising: scale over logical workers in place of processes", "LIST", default=None
    )
    ways: Annotated[tuple[str, ...], read_by(parse_ways)] = flag(
        f"with --workers, of the lr in weak scaling: {', '.join(WAYS)}", "LIST", default="plain,warmup,decay"
    )
    warmup_epochs: float | None = flag(
        "with --workers: of ways that warm up (default: a quarter of the epochs, at most 5)", "E", default=None, gt=0
    )
    fractions: Annotated[tuple[float, ...], read_by(parse_fractions)] = flag(
        "with --workers: parts of the training set (data.train_fraction), each in weak scaling by the first way",
        "LIST", default="1",
    )  # fmt: skip

    def workers_of(self, recipe: Recipe) -> tuple[int, ...] | None:
        """k of a question about workers; None of one about processes."""
        published = (
            self.compare == "unet" and recipe.task == "segmentation" and "processes" not in self.model_fields_set
        )
        return self.workers or (PUBLISHED_WORKERS if published else None)

    def measures_time(self, recipe: Recipe) -> bool:
        """That over processes does; that over workers is about the score alone."""
        return not self.workers_of(recipe)

    def home(self, recipe: Recipe) -> str | None:
        """Workers have a package of their own."""
        return "batchscale.study.workers" if self.workers_of(recipe) else None

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
        if (workers := self.workers_of(recipe)) is not None:
            self._check_workers(recipe, workers)
            return
        if given := {"ways", "warmup_epochs", "fractions"} & self.model_fields_set:
            name = sorted(given)[0].replace("_", "-")
            raise UsageError(f"--{name}: is about workers; give --workers, such as 1,2,4,8, too, or leave it out")
        k, most = recipe.minibatch.workers, self.processes[-1]
        if STRONG in self.modes and most > k:
            raise UsageError(
                f"--processes={most}: strong scaling spreads the recipe's minibatch.workers={k} over the processes; "
                f"use at most {k}, raise minibatch.workers (and lower minibatch.per_worker), or --mode weak"
            )

    def _check_workers(self, recipe: Recipe, workers: tuple[int, ...]) -> None:
        if "processes" in self.model_fields_set:
            raise UsageError("--processes: a study over --workers runs on one process; leave one of the two out")
        data = recipe.data
        for entry, value, whole in (("images", data.train_images, None), ("fraction", data.train_fraction, 1)):
            if self.fractions[0] < 1 and value != whole:
                raise UsageError(
                    f"--fractions={','.join(f'{part:g}' for part in self.fractions)}: sets data.train_fraction, and "
                    f"the recipe has data.train_{entry}={value:g}; leave one of the two out"
                )
        kn = recipe.minibatch.workers * recipe.minibatch.per_worker
        if STRONG in self.modes and (bad := [k for k in workers if kn % k]):
            raise UsageError(
                f"--workers={','.join(map(str, workers))}: strong scaling parts kn = {kn} evenly, and {bad[0]} does "
                f"not divide it; use divisors of {kn}, or --mode weak"
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
        check_fits(images, case.training_images, recipe, "--processes: weak scaling's minibatch")
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
