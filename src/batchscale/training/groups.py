"""WorkerGroups of workers that are normalised together though they are not one tensor of one process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from batchscale.aggregate.riders import ForwardPass
from batchscale.data.feed import Batch
from batchscale.randomness import key
from batchscale.worker.lanes import Lanes
from batchscale.worker.shared_batch_norm import SharedPass, Sum, alone, shared_part

if TYPE_CHECKING:
    from batchscale.training.step import TrainingStep

DROPOUT = 100  # the stream of random modules, keyed (seed, step, worker)


@dataclass(frozen=True)
class WorkerGroups:
    """How a step's passes see the groups of workers.

    Attributes:
        span: g, the workers of a group.
        sums: k -> the sum over the processes that host this one's group; None where this one hosts whole groups.
        lanes: where each worker has a pass of its own; None where a pass holds all of a group that is here.
    """

    span: int = 1
    sums: Callable[[int], Sum | None] = lambda workers: None
    lanes: Lanes | None = None

    def together(self, passes: Sequence[Batch]) -> list[Sequence[Batch]]:
        """The passes of a step, those together that run together."""
        at_once = self.span if self.lanes else 1
        return [passes[first : first + at_once] for first in range(0, len(passes), at_once)]

    def shared(self, workers: int, worker: int) -> SharedPass | None:
        """Of a pass whose first worker is ``worker``, in a step of k workers; None where it holds whole groups."""
        add = self.sums(workers)
        return shared_part(self.span, worker % self.span, add) if add else None

    def gradients(self, parts: TrainingStep, step: int, worker: int, passes: Sequence[Batch]) -> None:
        """Forward and backward of workers of one group, the first of which is ``worker``: a lane each."""
        assert self.lanes is not None
        parts.seconds.begin("forward")
        minibatch = parts.plan.minibatch_at(step)
        runs = [partial(_forward, parts, step, worker + place, batch) for place, batch in enumerate(passes)]
        add = self.sums(minibatch.workers) or alone
        results = self.lanes.run(runs, parts.statistics, worker % self.span, add)
        losses = [loss for loss, _ in results]
        factor = parts.loss_scale.factor(minibatch.workers)
        parts.seconds.begin("backward")
        torch.autograd.backward(losses, [torch.full_like(loss, factor) for loss in losses])
        parts.statistics.workers = 1  # of each of the following
        for place, (batch, (loss, outputs)) in enumerate(zip(passes, results, strict=True)):
            own = ForwardPass(step, worker + place, 1, minibatch, loss.detach(), outputs, batch.targets)
            parts.riders.fill(own)
            parts.aggregator.flat.add(self.lanes.gradients(place))
            parts.aggregator.add()


def _forward(parts: TrainingStep, step: int, worker: int, batch: Batch) -> tuple[torch.Tensor, Any]:
    """(loss / kn, outputs) of one worker's pass."""
    if parts.draws_random:
        torch.manual_seed(key(parts.seed, step, worker, DROPOUT) >> 1)
    loss, outputs = parts.task.train_pass(
        lambda inputs: parts.noise(parts.model(inputs), step, worker), batch.inputs, batch.targets
    )
    return loss / parts.plan.minibatch_at(step).images, outputs
