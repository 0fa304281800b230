"""A point of a series: all frameworks in turn over W processes of n examples, then each trained for some epochs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from batchscale.bench.documents import FrameworkRow
from batchscale.bench.frameworks.proof import losses_of
from batchscale.bench.frameworks.settings import TrainingSetting, TrainingSettings
from batchscale.bench.rounds import Budget, Measured, Rounds, warm_up
from batchscale.bench.statistics import paired_ratio, spread
from batchscale.task import Evaluated, Task

REFERENCE = "batchscale"


@dataclass(frozen=True)
class LogitsScorer:
    """Scores logits of the test set, the same way for every framework.

    Attributes:
        task: of the recipe.
        targets: of the test set.
        scratch: where processes leave their logits.
    """

    task: Task
    targets: np.ndarray[Any, Any]
    scratch: Path

    def score(self, measured: Measured, processes: int) -> float:
        """Of the weights that a contender has now; rank r told the images r, r + W, ..."""
        measured.contender.ask({"predict": str(self.scratch)})
        shares = [torch.from_numpy(np.load(self.scratch / f"logits-{rank}.npy")) for rank in range(processes)]
        logits = torch.empty(len(self.targets), *shares[0].shape[1:])
        for rank, share in enumerate(shares):
            logits[rank::processes] = share
        outcome = self.task.evaluate_pass(lambda inputs: logits, None, torch.from_numpy(self.targets))
        count = len(logits)
        evaluated = Evaluated(count, float(outcome.loss) / count, tuple(outcome.counts.tolist()))
        return float(self.task.scores(evaluated)[self.task.score_kinds[0].name])


@dataclass(frozen=True)
class TrainedEpochs:
    """What some epochs gave: the mean loss of the last one, and the score after it."""

    loss: float
    score: float


@dataclass(frozen=True)
class SeriesPoint:
    """Of a series.

    Attributes:
        series: the names of the series that it belongs to.
        processes: W.
        per_process: n.
    """

    series: Sequence[str]
    processes: int
    per_process: int


def points_of(minibatch: int, processes: int) -> list[SeriesPoint]:
    """Of W processes: at W = 1 both series have the same one."""
    if processes == 1:
        return [SeriesPoint(("weak", "strong"), 1, minibatch)]
    return [SeriesPoint(("weak",), processes, minibatch), SeriesPoint(("strong",), processes, minibatch // processes)]


def measure_point(
    rounds: Rounds, settings: TrainingSettings, point: SeriesPoint, budget: Budget, epochs: int, scorer: LogitsScorer
) -> list[FrameworkRow]:
    """Time all in turn, then train each.

    Args:
        rounds: with the contenders that agree.
        settings: of the recipe.
        point: W and n.
        budget: of the rounds.
        epochs: to train; 0: none.
        scorer: of the test set.
    """
    timing = settings.timing(point.processes, point.per_process)
    for measured in list(rounds.running):
        with rounds.may_fail(measured):
            measured.blocks.clear()
            measured.contender.ask(timing.order)
            warm_up(measured)
    if rounds.running:
        rounds.measure(budget, time.monotonic())
    timed = {m.contender.name: m for m in rounds.running}  # one that fails in training keeps what was timed
    training = settings.training(point.processes, point.per_process, epochs) if epochs else None
    outcomes: dict[str, TrainedEpochs] = {}
    for measured in list(rounds.running) if training else ():
        assert training is not None
        with rounds.may_fail(measured):
            outcomes[measured.contender.name] = _train(measured, training, epochs, scorer, point.processes)
    return [
        _row(timed, name, series, point, timing.minibatch, settings.training_images, outcomes.get(name))
        for series in point.series
        for name in timed
    ]


def _train(
    measured: Measured, setting: TrainingSetting, epochs: int, scorer: LogitsScorer, processes: int
) -> TrainedEpochs:
    measured.contender.ask(setting.order)
    steps = setting.steps // epochs
    losses: list[float] = []
    for _ in range(epochs):
        losses = losses_of(measured, steps, steps * measured.seconds_per_step)
    return TrainedEpochs(sum(losses) / len(losses), scorer.score(measured, processes))


def _row(
    timed: Mapping[str, Measured],
    name: str,
    series: str,
    point: SeriesPoint,
    minibatch: int,
    training_images: int,
    outcome: TrainedEpochs | None,
) -> FrameworkRow:
    speeds = {key: [b.steps * minibatch / b.wall_seconds for b in m.blocks] for key, m in timed.items()}
    per_cpu = [b.steps * minibatch / b.cpu_seconds for b in timed[name].blocks]
    speed = spread(speeds[name])
    ratio = paired_ratio(speeds[name], speeds[REFERENCE]) if REFERENCE in speeds else None
    return FrameworkRow(
        name=name, series=series, processes=point.processes, per_process=point.per_process, minibatch=minibatch,
        examples_per_second=round(speed.median, 1), iqr=round(speed.iqr, 1),
        examples_per_cpu_second=round(spread(per_cpu).median, 1),
        seconds_per_epoch=round(training_images / speed.median, 2),
        ratio=round(ratio.median, 4) if ratio else None, ratio_iqr=round(ratio.iqr, 4) if ratio else None,
        loss=round(outcome.loss, 5) if outcome else None, score=round(outcome.score, 3) if outcome else None,
    )  # fmt: skip


def with_efficiency(rows: Sequence[FrameworkRow]) -> list[FrameworkRow]:
    """rate(W) / (W rate(1)), where W = 1 was measured."""
    alone = {(row.name, row.series): row.examples_per_second for row in rows if row.processes == 1}
    return [
        row.model_copy(update={"efficiency": round(row.examples_per_second / (row.processes * first), 4)})
        if (first := alone.get((row.name, row.series)))
        else row
        for row in rows
    ]
