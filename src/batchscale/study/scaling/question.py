"""Strong and weak scaling over W processes: speed, phases, and what becomes of the error.

strong: the recipe's kn whatever W;   weak: W times the recipe's workers, kn = W (kn of the recipe), lr by its rule
speed-up(W) = images/s(W) / images/s(W_0),   efficiency(W) = speed-up(W) / (W / W_0),   W_0 the smallest W

Source: Amdahl 1967 (strong), Gustafson 1988 (weak); Goyal et al. 2017, section 5.5 (efficiency against W).
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from batchscale.build.planning import plan_of
from batchscale.errors import UsageError
from batchscale.recipe import recipe_from
from batchscale.recipe.schema import Recipe
from batchscale.study.evidence.elbow import Point
from batchscale.study.evidence.instrument import measured_alike
from batchscale.study.evidence.quantities import error_percent, point_of, train_loss
from batchscale.study.evidence.timing import PHASES, Timing, timing_of
from batchscale.study.rules import check_fits, check_fixed
from batchscale.study.runner.cell import Cell, Outcome
from batchscale.system.cores import available_cores

STRONG, WEAK = "strong", "weak"
_INTERVALS = 12  # of a run, at least, where it has so many steps


@dataclass(frozen=True)
class Question:
    """What is asked.

    Args:
        recipe_name, recipe: the base; its seed is the first.
        processes: W, rising.
        modes: strong, weak, or both.
        seeds: how many.
        training_images: N.
        efficiency_bound: strong scaling pays while efficiency is at least this.
        error_bound: weak scaling is sound while the mean error is within so many points of that at the smallest W.
    """

    recipe_name: str
    recipe: Recipe
    processes: tuple[int, ...]
    modes: tuple[str, ...]
    seeds: int
    training_images: int
    efficiency_bound: float = 0.8
    error_bound: float = 0.5


def cores() -> int:
    """Of this machine, as far as this process may use them."""
    return available_cores()


def parse_processes(text: str) -> tuple[int, ...]:
    """Process counts from ``1,2,4,8``.

    Raises:
        UsageError: not whole numbers from 1 on, or not rising.
    """
    words = [word.strip() for word in text.split(",")]
    if not all(re.fullmatch("[0-9]{1,7}", word) and 1 <= int(word) <= 10**6 for word in words):
        raise UsageError(f"--processes={text}: must be whole numbers of at least 1; write for example 1,2,4,8")
    found = tuple(int(word) for word in words)
    if list(found) != sorted(set(found)):
        raise UsageError(
            f"--processes={text}: must rise, each count once; write {','.join(map(str, sorted(set(found))))}"
        )
    return found


def check_asked(recipe: Recipe, processes: tuple[int, ...], modes: Sequence[str]) -> None:
    """Raise where the question is none, whatever the data.

    Raises:
        UsageError: one line.
    """
    check_fixed(recipe)
    k, most = recipe.minibatch.workers, processes[-1]
    if STRONG in modes and most > k // recipe.batch_norm.span:
        raise UsageError(
            f"--processes={most}: strong scaling spreads the recipe's minibatch.workers={k}"
            f"{f' in groups of {recipe.batch_norm.span}' if recipe.batch_norm.span > 1 else ''} over the processes; "
            f"use at most {k // recipe.batch_norm.span}, raise minibatch.workers (and lower minibatch.per_worker), "
            f"or --mode weak"
        )


def cells_of(question: Question) -> list[Cell]:
    """Every mode, W and seed; strong and weak at W = 1 are one run.

    Raises:
        UsageError: one line.
    """
    recipe, k = question.recipe, question.recipe.minibatch.workers
    check_asked(recipe, question.processes, question.modes)
    if WEAK in question.modes:
        images = tuple(w * k * recipe.minibatch.per_worker for w in question.processes)
        check_fits(images, question.training_images, "--processes: weak scaling's minibatch")
    made = []
    for seed in range(recipe.seed, recipe.seed + question.seeds):  # outermost: a round times every W in turn
        for mode in question.modes:
            for processes in question.processes:
                given = _timed(question, k if mode == STRONG else k * processes)
                labels = {"mode": mode, "processes": processes, "seed": seed}
                made.append(Cell(labels, given.model_copy(update={"seed": seed}), processes))
    return measured_alike(made, question.training_images)


def threads_of(question: Question) -> int:
    """Of every process, whatever W: the recipe's, or the cores shared by the largest W."""
    given = question.recipe.numerics.threads
    return given if given != "auto" else max(cores() // question.processes[-1], 1)


def _timed(question: Question, workers: int) -> Recipe:
    """The recipe with so many workers, the same threads a process at every W, and a dozen intervals to time."""
    content = question.recipe.model_dump(mode="json")
    content["minibatch"]["workers"] = workers
    content["numerics"]["threads"] = threads_of(question)
    if content["execution"]["decode_threads"] == "auto":
        content["execution"]["decode_threads"] = threads_of(question)
    steps = plan_of(recipe_from(content), question.training_images).total_steps
    content["execution"]["log_steps"] = max(min(content["execution"]["log_steps"], steps // _INTERVALS), 1)
    return recipe_from(content)


@dataclass(frozen=True)
class Row:
    """What was measured at one W in one mode.

    Attributes:
        minibatch: kn; per_process: images of a process, kn / W.
        images_per_second: median over seeds of each run's median interval; None where nothing was measured.
        speed_ups: seed -> images/s against that of the same seed at the smallest W of the mode.
        spread: interquartile range of a run's intervals over their median; median over seeds.
        phases: milliseconds of a step, phase -> median over seeds.
        errors: in percent, infinite for a run that diverged.
        losses: training losses of the last epoch, alike.
        folder: of the first seed's run.
    """

    mode: str
    processes: int
    minibatch: int
    images_per_second: float | None
    speed_ups: dict[int, float]
    fewest_processes: int
    spread: float
    phases: dict[str, float]
    errors: Point
    losses: Point
    folder: str
    devices: frozenset[str] = field(default_factory=frozenset)

    @property
    def speed_up(self) -> float | None:
        """Median over seeds; None where none could be paired."""
        return statistics.median(self.speed_ups.values()) if self.speed_ups else None

    @property
    def efficiency(self) -> float | None:
        """Speed-up over the ideal one."""
        return None if self.speed_up is None else self.speed_up * self.fewest_processes / self.processes

    @property
    def per_process(self) -> float:
        """Images of a process in a step."""
        return self.minibatch / self.processes


def rows_of(outcomes: Sequence[Outcome]) -> list[Row]:
    """The outcomes, one row a mode and W, each mode's smallest W first."""
    found: dict[tuple[str, int], list[Outcome]] = {}
    for outcome in outcomes:
        found.setdefault((outcome.cell.labels["mode"], outcome.cell.processes), []).append(outcome)
    timings = {at: _timings(of) for at, of in found.items()}
    rows = []
    for mode, processes in found:
        fewest = min(w for m, w in found if m == mode)
        rows.append(_row(mode, processes, found[mode, processes], timings, fewest))
    return rows


def _timings(of: Sequence[Outcome]) -> dict[int, Timing]:
    """seed -> the timing of its run, where it ended well."""
    read = {o.cell.labels["seed"]: timing_of(o.folder) for o in of if o.status == "done"}
    return {seed: timing for seed, timing in read.items() if timing is not None}


def _row(
    mode: str, processes: int, of: Sequence[Outcome], timings: dict[tuple[str, int], dict[int, Timing]], fewest: int
) -> Row:
    mine, base = timings[mode, processes], timings[mode, fewest]
    minibatch = of[0].cell.minibatch_images
    return Row(
        mode=mode,
        processes=processes,
        minibatch=minibatch,
        images_per_second=statistics.median(t.images_per_second for t in mine.values()) if mine else None,
        speed_ups={s: t.images_per_second / base[s].images_per_second for s, t in mine.items() if s in base},
        fewest_processes=fewest,
        spread=statistics.median(t.spread for t in mine.values()) if mine else 0.0,
        phases={p: statistics.median(t.phase_milliseconds[p] for t in mine.values()) for p in PHASES if mine},
        errors=point_of(minibatch, map(error_percent, of)),
        losses=point_of(minibatch, map(train_loss, of)),
        folder=of[0].row()["folder"],
        devices=frozenset(timing.device for timing in mine.values()),
    )


@dataclass(frozen=True)
class Passing:
    """Where a quantity passes a bound.

    Attributes:
        processes: W, interpolated in log2 W between the measured points around it; None where it never does.
        within: the largest W measured before it.
    """

    processes: float | None
    within: int | None


def passing(measured: Sequence[tuple[int, float | None]], bound: float, falls: bool) -> Passing:
    """The first W at which a quantity passes the bound.

    Args:
        measured: (W, quantity) in rising W; None is unknown and ends the search, infinite lies beyond every bound.
        bound: the last value that is still within.
        falls: the quantity falls below the bound (efficiency), rather than rising above it (error).
    """
    sign = -1.0 if falls else 1.0
    before: tuple[int, float] | None = None
    for processes, value in measured:
        if value is None:
            break
        over = sign * (value - bound)
        if over > 1e-9:
            if before is None:
                return Passing(float(processes), None)
            share = 0.0 if math.isinf(over) else -before[1] / (over - before[1])
            span = math.log2(processes / before[0])
            return Passing(before[0] * 2 ** (share * span), before[0])
        before = processes, over
    return Passing(None, before[0] if before else None)


def strong_limit(rows: Sequence[Row], bound: float) -> Passing:
    """The W at which strong scaling's efficiency falls below the bound."""
    return passing([(row.processes, row.efficiency) for row in rows if row.mode == STRONG], bound, falls=True)


def weak_limit(rows: Sequence[Row], bound: float) -> Passing:
    """The W at which weak scaling's mean error is more than the bound above that at the smallest W."""
    of = [row for row in rows if row.mode == WEAK]
    reference = of[0].errors.mean
    if math.isinf(reference):
        return Passing(None, None)
    measured = [(row.processes, row.errors.mean - reference if row.errors.errors else None) for row in of]
    return passing(measured, bound, falls=False)
