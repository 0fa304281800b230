"""One step of synchronous SGD over k workers of n images, as in the paper.

w <- update(w, sum_j (1 / kn) sum_{x in B_j} grad l(x, w))

Source: Goyal et al. 2017, equation 2 and section 3.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import nn

from batchscale.aggregate import ExactAggregator, FastAggregator
from batchscale.data.feed import Batch
from batchscale.minibatch import StepPlan
from batchscale.randomness import key
from batchscale.update.optimizers import Optimizer
from batchscale.worker.batch_norm import RunningAverages, Statistics
from batchscale.worker.gradient import summed_loss
from batchscale.worker.precision import LossScale, NoLossScale

_DROPOUT = 100  # the stream of random modules, keyed (seed, step, worker)


@dataclass
class PhaseSeconds:
    """Where the time of this process's steps went, summed since the last ``take``.

    Attributes:
        data: waiting for the passes of the step.
        forward: model and loss, with the clearing of the sums before them.
        backward: gradients; what of the aggregation overlaps with them is in here.
        aggregation: waiting for the sum after the last backward pass, for slower processes too.
        update: the optimizer, the running averages.
    """

    data: float = 0.0
    forward: float = 0.0
    backward: float = 0.0
    aggregation: float = 0.0
    update: float = 0.0

    def take(self) -> dict[str, float]:
        """The sums so far, set back to zero."""
        taken = {name: round(value, 6) for name, value in vars(self).items()}
        self.data = self.forward = self.backward = self.aggregation = self.update = 0.0
        return taken


@dataclass(frozen=True)
class StepResult:
    """What all processes know after a step.

    Attributes:
        loss: mean over the kn images.
        wrong: of these images, as trained on.
        finite: it and every gradient; else the weights are as they were.
        stop: some process was asked to stop.
        news: some process has something to tell the others, on all of them alike.
        recovers: not finite, but a smaller loss scale may be.
    """

    loss: float
    wrong: int
    finite: bool
    stop: bool
    news: bool
    recovers: bool


@dataclass
class TrainingStep:
    """The parts of a step; call it with (step, passes). ``workers`` tells which of k workers are this process's.

    A loss or a gradient that is not finite leaves the weights, the optimizer and the running averages as they were.
    """

    model: nn.Module
    statistics: Statistics
    averages: RunningAverages
    aggregator: FastAggregator | ExactAggregator
    optimizer: Optimizer
    schedule: Callable[[int], float]
    plan: StepPlan
    workers: Callable[[int], range]
    seed: int
    label_smoothing: float = 0.0
    draws_random: bool = False
    noise: Callable[[torch.Tensor, int, int], torch.Tensor] = lambda logits, step, worker: logits
    set_momentum: Callable[[int], None] = lambda step: None
    loss_scale: LossScale | NoLossScale = field(default_factory=NoLossScale)
    stop_requested: Callable[[], bool] = lambda: False
    has_news: Callable[[], bool] = lambda: False
    seconds: PhaseSeconds = field(default_factory=PhaseSeconds)

    def __call__(self, step: int, passes: list[Batch]) -> StepResult:
        """Train on one minibatch: gradient of every worker, their sum, the update."""
        start, backward = time.perf_counter(), self.seconds.backward
        extras, counts = self.aggregator.flat.extras, self.aggregator.flat.counts
        workers = self.plan.minibatch_at(step).workers
        for _ in self.aggregator.attempts():
            counts["stop"].fill_(float(self.stop_requested()))
            counts["news"].fill_(float(self.has_news()))
            worker = self.workers(workers).start
            for number, batch in enumerate(passes):
                self.gradient(step, worker, batch, last=number == len(passes) - 1)
                worker += self.statistics.workers
            computed = time.perf_counter()
        summed = time.perf_counter()
        self.loss_scale.unscale(workers)
        loss, wrong, stop = float(extras["loss"]), int(counts["wrong"]), bool(counts["stop"])
        news = bool(counts["news"])
        finite = math.isfinite(loss) and bool(self.aggregator.flat.buffer.isfinite().all())
        if finite:
            self.averages.update(extras["statistics"], self._absent(workers))
            self.set_momentum(step)
            self.optimizer.step(lr=self.schedule(step))
        goes_on = self.loss_scale.update(finite, workers)
        self.seconds.forward += computed - start - (self.seconds.backward - backward)
        self.seconds.aggregation += summed - computed
        self.seconds.update += time.perf_counter() - summed
        return StepResult(loss, wrong, finite, stop, news, recovers=goes_on and not finite)

    def _absent(self, workers: int) -> list[float]:
        """The share of the workers whose pass did not run each batch-norm layer; empty where all ran all."""
        passed_over = self.aggregator.flat.counts["absent"].tolist() if self.statistics.layers else []
        return [count / workers for count in passed_over] if any(passed_over) else []

    def gradient(self, step: int, worker: int, batch: Batch, last: bool) -> None:
        """Forward and backward of one pass, whose first worker is ``worker``."""
        flat = self.aggregator.flat
        if self.draws_random:
            torch.manual_seed(key(self.seed, step, worker, _DROPOUT) >> 1)
        minibatch = self.plan.minibatch_at(step)
        self.statistics.begin_pass(len(batch.labels) // minibatch.per_worker)
        logits = self.noise(self.model(batch.images), step, worker)
        loss = summed_loss(logits, batch.labels, self.label_smoothing) / minibatch.images
        flat.counts["wrong"].add_((logits.detach().argmax(1) != batch.labels).sum())
        flat.extras["loss"].add_(loss.detach())
        flat.extras["statistics"].add_(self.statistics.summed() / minibatch.workers)
        if absent := self.statistics.absent():
            flat.counts["absent"][absent] += self.statistics.workers
        if last:
            self.aggregator.last_pass()
        start = time.perf_counter()
        loss.backward(torch.full_like(loss, self.loss_scale.factor(minibatch.workers)))  # type: ignore[no-untyped-call]
        self.aggregator.add()
        self.seconds.backward += time.perf_counter() - start
