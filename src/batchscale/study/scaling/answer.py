"""Scaling in numbers: speed, phases, and what becomes of the error, at every W.

speed-up(W) = images/s(W) / images/s(W_0),   efficiency(W) = speed-up(W) / (W / W_0),   W_0 the smallest W
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from batchscale.study.evidence.elbow import Point
from batchscale.study.evidence.judged import Judged, judged_of
from batchscale.study.evidence.quantities import point_of, score_of, train_loss
from batchscale.study.evidence.timing import PHASES, Timing, timing_of
from batchscale.study.question import Case
from batchscale.study.runner.cell import Outcome
from batchscale.study.scaling.question import STRONG, WEAK, Question, threads_of
from batchscale.system.cores import available_cores


@dataclass(frozen=True)
class Row:
    """What was measured at one W in one mode.

    Attributes:
        minibatch: kn; per_process: images of a process, kn / W.
        images_per_second: median over seeds of each run's median interval; None where nothing was measured.
        speed_ups: seed -> images/s against that of the same seed at the smallest W of the mode.
        spread: interquartile range of a run's intervals over their median; median over seeds.
        phases: milliseconds of a step, phase -> median over seeds.
        scores: infinite for a run that diverged.
        losses: training losses of the last epoch, alike.
        folder: of the first seed's run.
        nodes: of a cluster, as it lists those of a run; none elsewhere.
    """

    mode: str
    processes: int
    minibatch: int
    images_per_second: float | None
    speed_ups: dict[int, float]
    fewest_processes: int
    spread: float
    phases: dict[str, float]
    scores: Point
    losses: Point
    folder: str
    devices: frozenset[str] = field(default_factory=frozenset)
    nodes: frozenset[str] = field(default_factory=frozenset)

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

    @property
    def where(self) -> str:
        """As in a sentence."""
        return f"{self.mode}, W = {self.processes}"


@dataclass(frozen=True)
class Passing:
    """Where a quantity passes a bound.

    Attributes:
        processes: W, interpolated in log2 W between the measured points around it; None where it never does.
        within: the largest W measured before it.
    """

    processes: float | None
    within: int | None


@dataclass(frozen=True)
class Answer:
    """How far either mode pays.

    Args:
        rows: one a mode and W, each mode's smallest W first.
        limits: mode -> where it stops paying.
        judged: what the runs are judged by.
    """

    rows: tuple[Row, ...]
    limits: dict[str, Passing]
    judged: Judged

    def of_mode(self, mode: str) -> list[Row]:
        """The rows of a mode."""
        return [row for row in self.rows if row.mode == mode]

    def error_bound(self, stated: float | None) -> float:
        """How much worse than at its smallest W weak scaling may make the score, in the score's unit."""
        weak = self.of_mode(WEAK)
        return self.judged.tolerance(stated, weak[0].scores.mean if weak else math.inf)


def answer_of(case: Case[Question], outcomes: Sequence[Outcome]) -> Answer:
    """The rows, and where strong scaling's efficiency and weak scaling's score pass their bounds."""
    rows, judged, question = rows_of(outcomes), judged_of(outcomes), case.question
    limits = {}
    if STRONG in question.modes:
        limits[STRONG] = strong_limit(rows, question.efficiency_bound)
    if WEAK in question.modes:
        limits[WEAK] = weak_limit(rows, question.error_bound, judged)
    return Answer(tuple(rows), limits, judged)


def rows_of(outcomes: Sequence[Outcome]) -> list[Row]:
    """The outcomes, one row a mode and W, each mode's smallest W first."""
    groups: dict[tuple[str, int], list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault((outcome.cell.labels["mode"], outcome.cell.processes), []).append(outcome)
    timings = {place: _timings(group) for place, group in groups.items()}
    rows = []
    for mode, processes in groups:
        fewest = min(each for other, each in groups if other == mode)
        rows.append(_row(groups[mode, processes], timings[mode, processes], timings[mode, fewest], fewest))
    return rows


def _timings(outcomes: Sequence[Outcome]) -> dict[int, Timing]:
    """seed -> the timing of its run, where it ended well."""
    read = {o.cell.labels["seed"]: timing_of(o.folder) for o in outcomes if o.status == "done"}
    return {seed: timing for seed, timing in read.items() if timing is not None}


def _row(outcomes: Sequence[Outcome], timings: dict[int, Timing], base: dict[int, Timing], fewest: int) -> Row:
    cell = outcomes[0].cell
    minibatch = cell.minibatch_images
    return Row(
        mode=cell.labels["mode"],
        processes=cell.processes,
        minibatch=minibatch,
        images_per_second=statistics.median(t.images_per_second for t in timings.values()) if timings else None,
        speed_ups={s: t.images_per_second / base[s].images_per_second for s, t in timings.items() if s in base},
        fewest_processes=fewest,
        spread=statistics.median(t.spread for t in timings.values()) if timings else 0.0,
        phases={p: statistics.median(t.phase_milliseconds[p] for t in timings.values()) for p in PHASES if timings},
        scores=point_of(minibatch, map(score_of, outcomes)),
        losses=point_of(minibatch, map(train_loss, outcomes)),
        folder=outcomes[0].row()["folder"],
        devices=frozenset(timing.device for timing in timings.values()),
        nodes=frozenset(timing.nodes for timing in timings.values() if timing.nodes),
    )


def passing(measured: Sequence[tuple[int, float | None]], bound: float, falls: bool) -> Passing:
    """The first W at which a quantity passes the bound.

    Args:
        measured: (W, quantity) in rising W; None is unknown and ends the search, infinite lies beyond every bound.
        bound: the last value that is still within.
        falls: the quantity falls below the bound (efficiency), rather than rising above it (error).
    """
    sign = -1.0 if falls else 1.0
    last: tuple[int, float] | None = None
    for processes, value in measured:
        if value is None:
            break
        over = sign * (value - bound)
        if over > 1e-9:
            if last is None:
                return Passing(float(processes), None)
            share = 0.0 if math.isinf(over) else -last[1] / (over - last[1])
            span = math.log2(processes / last[0])
            return Passing(last[0] * 2 ** (share * span), last[0])
        last = processes, over
    return Passing(None, last[0] if last else None)


def strong_limit(rows: Sequence[Row], bound: float) -> Passing:
    """The W at which strong scaling's efficiency falls below the bound."""
    return passing([(row.processes, row.efficiency) for row in rows if row.mode == STRONG], bound, falls=True)


def weak_limit(rows: Sequence[Row], stated: float | None, judged: Judged) -> Passing:
    """The W at which weak scaling's mean score is worse by more than the bound than that at the smallest W."""
    weak = [row for row in rows if row.mode == WEAK]
    reference = weak[0].scores.mean
    bound = judged.tolerance(stated, reference)
    if math.isinf(reference):
        return Passing(None, None)
    measured = [
        (row.processes, judged.worse_by(row.scores.mean, reference) if row.scores.errors else None) for row in weak
    ]
    return passing(measured, bound, falls=False)


def oversubscribed(case: Case[Question], row: Row) -> bool:
    """Whether the row's processes had more threads than the machine has cores; each on its own ones on a cluster."""
    if case.task_cores is not None:
        return threads_of(case) > case.task_cores
    return row.processes * threads_of(case) > available_cores()


def as_json(case: Case[Question], answer: Answer) -> dict[str, Any]:
    """The answer as numbers."""
    return {
        "scaling": {
            "evaluated_on": answer.judged.split,
            "efficiency_bound": case.question.efficiency_bound,
            "error_bound_points": answer.error_bound(case.question.error_bound),
            "threads_per_process": threads_of(case),
            "limits": {mode: asdict(limit) for mode, limit in answer.limits.items()},
            "measured": [_row_json(case, answer, row) for row in answer.rows],
        }
    }


def _row_json(case: Case[Question], answer: Answer, row: Row) -> dict[str, Any]:
    return {
        "mode": row.mode,
        "processes": row.processes,
        "minibatch": row.minibatch,
        "images_per_process": row.per_process,
        "images_per_second": row.images_per_second,
        "speed_up": row.speed_up,
        "efficiency": row.efficiency,
        "spread": row.spread,
        "phase_milliseconds": row.phases,
        **answer.judged.entries(row.scores.mean),
        "train_loss": None if math.isinf(row.losses.mean) else row.losses.mean,
        "oversubscribed": oversubscribed(case, row),
        "nodes": sorted(row.nodes),
    }
