"""The choice of the micro-batch: passes of several sizes, timed for at most a second before training."""

from __future__ import annotations

import time

import torch
from torch import nn

from batchscale.data.feed import Normalizer
from batchscale.data.images import Labelled
from batchscale.worker.batch_norm import Statistics
from batchscale.worker.gradient import summed_loss

_TRIAL_SECONDS = 1.0


class MicroBatchTrial:
    """Forward and backward passes of several sizes, timed, to choose the micro-batch.

    Args:
        model, statistics, normalizer: of the run.
        one: pixels and labels of one group's g n images (g = 1: of one worker's n).
        per_worker: n.
    """

    def __init__(
        self, model: nn.Module, statistics: Statistics, normalizer: Normalizer, one: Labelled, per_worker: int
    ) -> None:
        self._model, self._statistics, self._normalize = model, statistics, normalizer
        self._one, self._per_worker = one, per_worker

    def _seconds_per_image(self, groups: int) -> float:
        pixels, labels = (t.repeat(groups, *[1] * (t.ndim - 1)) for t in self._one)
        inputs = self._normalize(pixels)
        labels = labels.to(inputs.device)
        self._statistics.begin_pass(len(labels) // self._per_worker)
        start = time.perf_counter()
        summed_loss(self._model(inputs), labels).backward()  # type: ignore[no-untyped-call]
        if inputs.is_cuda:
            torch.cuda.synchronize()
        return (time.perf_counter() - start) / len(labels)

    def best(self, workers: range, one: bool) -> int:
        """Images of the fastest pass among 1, 2, 4, ... groups; one group's where only that is right."""
        n, sizes = len(self._one[1]), [1]
        while not one and sizes[-1] * 2 * n <= len(workers) * self._per_worker and sizes[-1] * n < 1024:
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
                elif time.perf_counter() > deadline:  # a large model: one group a pass, and no more trials
                    return self._cleared(n)
            if time.perf_counter() > deadline and round_:
                break
        return self._cleared(n * min(sizes, key=lambda size: min(times[size])))

    def _cleared(self, micro_batch: int) -> int:
        for parameter in self._model.parameters():
            parameter.grad = None
        return micro_batch
