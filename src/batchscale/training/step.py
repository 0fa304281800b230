"""One step of synchronous SGD over k workers of n examples, as in the paper.

w <- update(w, sum_j (1 / kn) sum_{x in B_j} grad l(x, w))

A worker's gradient is that of the loss summed over its examples, divided once, at the root of backward, by kn.

Source: Goyal et al. 2017, equation 2 and section 3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import nn

from batchscale.aggregate import ExactAggregator, FastAggregator
from batchscale.aggregate.riders import ForwardPass, PartGradient, Riders
from batchscale.data.feed import Batch
from batchscale.minibatch import Minibatch, StepPlan
from batchscale.randomness import key
from batchscale.structure import num_examples
from batchscale.task import Task
from batchscale.training.answer import StepAnswer, StepValues
from batchscale.training.gate import Gate, Late
from batchscale.training.groups import WorkerGroups
from batchscale.training.phases import PhaseSeconds
from batchscale.update.optimizers import Optimizer
from batchscale.worker.batch_norm import RunningAverages
from batchscale.worker.lanes import Lanes
from batchscale.worker.precision import LossScale, NoLossScale
from batchscale.worker.shared_batch_norm import alone
from batchscale.worker.statistics import Statistics

_DROPOUT = 100  # the stream of random modules, keyed (seed, step, worker)


def _unchanged(outputs: Any, step: int, worker: int) -> Any:
    return outputs


@dataclass
class TrainingStep:
    """The parts of a step; call it with (step, passes).

    A loss or a gradient that is not finite leaves the weights, the optimizer and the running averages as they were;
    who decides that, host or device, the gate says.

    Attributes:
        model: what a pass calls.
        task: what is learned.
        statistics, averages: of its batch norm.
        riders: what is summed beside the gradient.
        workers: k -> the numbers of this process's workers.
        gate: between the sum and the update.
        draws_random: a pass draws random numbers, keyed by its worker.
        noise: (outputs, step, first worker) -> outputs whose gradients are multiplied.
        set_constants: gives the optimizer the constants of a step: momentum, and what the scaling rule changes.
        groups: of workers that are normalised together.
        seconds: of its phases, by the clock of the device.
    """

    model: nn.Module
    task: Task
    statistics: Statistics
    averages: RunningAverages
    aggregator: FastAggregator | ExactAggregator
    riders: Riders
    optimizer: Optimizer
    schedule: Callable[[int], float]
    plan: StepPlan
    workers: Callable[[int], range]
    seed: int
    gate: Gate
    draws_random: bool = False
    noise: Callable[[Any, int, int], Any] = _unchanged
    set_constants: Callable[[int], None] = lambda step: None
    groups: WorkerGroups = field(default_factory=WorkerGroups)
    loss_scale: LossScale | NoLossScale = field(default_factory=NoLossScale)
    seconds: PhaseSeconds = field(default_factory=PhaseSeconds)

    def __post_init__(self) -> None:
        self.riders.board(self.aggregator.flat)

    def __call__(self, step: int, passes: Sequence[Batch]) -> StepAnswer:
        """Train on one minibatch: gradient of every worker, their sum, the update."""
        self.seconds.begin("forward")
        minibatch, snapshot = self.plan.minibatch_at(step), self.gate.begin()
        apart = self.riders.apart(step)
        for _ in self.aggregator.attempts(apart):
            self.riders.begin()
            worker = self.workers(minibatch.workers).start
            units = self.groups.together(passes)
            for number, unit in enumerate(units):
                if self.groups.lanes is not None:
                    self._in_lanes(self.groups.lanes, step, worker, list(unit))  # made once
                    worker += len(unit)
                else:
                    self.gradient(step, worker, unit[0], last=number == len(units) - 1)
                    worker += self.statistics.workers
            self.seconds.begin("aggregation")
        self.seconds.begin("update")
        self.loss_scale.unscale(minibatch.workers)
        opens = self.gate.opens(self.riders)
        if opens:
            if apart:
                self.riders.summed(step, PartGradient(self.aggregator.flat.gradients, minibatch.images))
            with self.gate.update():
                self.riders.update(minibatch)
                self.set_constants(step)
                self.optimizer.step(lr=self.schedule(step))
        goes_on = self.loss_scale.update(opens, minibatch.workers)
        answer = self.gate.answer(self.riders, snapshot, opens, goes_on and not opens)
        self.seconds.end()
        return answer

    def take_back(self, step: int, values: StepValues, answers: Sequence[StepAnswer]) -> StepValues | None:
        """Follow the device where it did not take the update of a step.

        Args:
            step: whose values are not settled.
            values: of it.
            answers: of it, and of the steps that have run since, which are void.

        Returns:
            Its values, settled, as those of a host that asks; None where the step is to run again.
        """
        assert isinstance(self.gate, Late)
        repeats, self.gate = self.gate.take_back(values, answers, self.riders)
        if repeats:
            return None
        goes_on = self.loss_scale.update(False, self.plan.minibatch_at(step).workers)
        return replace(values, recovers=goes_on, settled=True)

    def gradient(self, step: int, worker: int, batch: Batch, last: bool) -> None:
        """Forward and backward of one pass, whose first worker is ``worker``."""
        self.seconds.begin("forward")
        minibatch = self.plan.minibatch_at(step)
        shared = self.groups.shared(minibatch.workers, worker)
        self.statistics.begin_pass(num_examples(batch.targets) // minibatch.per_worker, shared)
        loss, outputs = self._forward(step, worker, batch, minibatch)
        self._fill(step, worker, loss, outputs, batch, minibatch)
        if last and not (shared and loss.is_cuda):  # two communicators of NCCL must not be under way at once
            self.aggregator.last_pass()
        self.seconds.begin("backward")
        factor = self.loss_scale.factor(minibatch.workers)
        loss.backward(torch.full_like(loss, factor))  # type: ignore[no-untyped-call]
        if self.riders.apart(step):
            gradient = PartGradient(self.aggregator.flat.gradients, num_examples(batch.targets), factor)
            self.riders.passed(step, gradient)
        self.aggregator.add()

    def _in_lanes(self, lanes: Lanes, step: int, worker: int, batches: Sequence[Batch]) -> None:
        """Forward and backward of workers of one group, the first of which is ``worker``: a pass each."""
        self.seconds.begin("forward")
        minibatch = self.plan.minibatch_at(step)
        runs = [partial(self._forward, step, worker + place, batch, minibatch) for place, batch in enumerate(batches)]
        add = self.groups.sums(minibatch.workers) or alone
        results = lanes.run(runs, self.statistics, worker % self.groups.span, add)
        self.seconds.begin("backward")
        factor, losses = self.loss_scale.factor(minibatch.workers), [loss for loss, _ in results]
        self.aggregator.flat.arrived = None
        torch.autograd.backward(losses, [torch.full_like(loss, factor) for loss in losses])
        lanes.check_apart(self.aggregator.flat.arrived)
        self.statistics.count_one_worker()
        for place, (batch, (loss, outputs)) in enumerate(zip(batches, results, strict=True)):
            self._fill(step, worker + place, loss, outputs, batch, minibatch)
            self.aggregator.flat.add(lanes.gradients(place))
            self.aggregator.add()

    def _forward(self, step: int, worker: int, batch: Batch, minibatch: Minibatch) -> tuple[torch.Tensor, Any]:
        """(loss / kn, outputs) of a pass whose first worker is ``worker``."""
        if self.draws_random:
            torch.manual_seed(key(self.seed, step, worker, _DROPOUT) >> 1)
        loss, outputs = self.task.train_pass(
            lambda *inputs: self.noise(self.model(*inputs), step, worker), batch.inputs, batch.targets
        )
        return loss / minibatch.images, outputs

    def _fill(
        self, step: int, worker: int, loss: torch.Tensor, outputs: Any, batch: Batch, minibatch: Minibatch
    ) -> None:
        workers = self.statistics.workers
        self.riders.fill(ForwardPass(step, worker, workers, minibatch, loss.detach(), outputs, batch.targets))
