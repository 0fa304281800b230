"""The choice of the micro-batch: passes of several sizes, timed for at most a second before training."""

from __future__ import annotations

import time

import torch
from torch import nn

from batchscale.data.feed import Normalizer
from batchscale.data.images import Labelled
from batchscale.minibatch import Minibatch
from batchscale.worker.batch_norm import Statistics
from batchscale.worker.gradient import summed_loss

_TRIAL_SECONDS = 1.0


class MicroBatchTrial:
    """Forward and backward passes of several sizes, timed, to choose the micro-batch.

    Args:
        model, statistics, normalizer: of the run.
        one: pixels and labels of one worker's n images.
        minibatch: k x n.
    """

    def __init__(
        self, model: nn.Module, statistics: Statistics, normalizer: Normalizer, one: Labelled, minibatch: Minibatch
    ) -> None:
        self._model, self._statistics, self._normalize = model, statistics, normalizer
        self._one, self._minibatch = one, minibatch

    def _seconds_per_image(self, workers: int) -> float:
        images = workers * self._minibatch.per_worker
        pixels, labels = (t.repeat(workers, *[1] * (t.ndim - 1)) for t in self._one)
        inputs = self._normalize(pixels)
        labels = labels.to(inputs.device)
        self._statistics.begin_pass(workers)
        start = time.perf_counter()
        summed_loss(self._model(inputs), labels).backward()  # type: ignore[no-untyped-call]
        if inputs.is_cuda:
            torch.cuda.synchronize()
        return (time.perf_counter() - start) / images

    def best(self, workers: range, one: bool) -> int:
        """Images of the fastest pass among 1, 2, 4, ... workers; one worker's where only that is right."""
        n, sizes = self._minibatch.per_worker, [1]
        while not one and sizes[-1] * 2 <= len(workers) and sizes[-1] * n < 1024:
            sizes.append(sizes[-1] * 2)
        if len(sizes) == 1:
            return n
        times: dict[int, list[float]] = {size: [] for size in sizes}
        deadline = time.perf_counter() + _TRIAL_SECONDS
        for round_ in range(12):
            for size in sizes:
                seconds = self._seconds_per_image(size)
                if round_:
                    times[size].append(seconds)
                elif time.perf_counter() > deadline:  # a large model: one worker a pass, and no more trials
                    return self._cleared(n)
            if time.perf_counter() > deadline and round_:
                break
        return self._cleared(n * min(sizes, key=lambda size: min(times[size])))

    def _cleared(self, micro_batch: int) -> int:
        for parameter in self._model.parameters():
            parameter.grad = None
        return micro_batch
