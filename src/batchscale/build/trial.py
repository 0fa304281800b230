"""The choice of threads and micro-batch: passes of the run, timed before training, for about a second each.

Cost: a model whose pass takes longer than that pays two passes for the threads, and one for the micro-batch.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch
from torch import nn

from batchscale.data.feed import Normalizer
from batchscale.structure import mapped, num_examples, repeated
from batchscale.task import Task
from batchscale.worker.statistics import Statistics

_TRIAL_SECONDS = 1.0
_MOST_IMAGES = 1024  # of a pass: larger ones were not faster
_SHORT_SECONDS = 0.025  # what the threads are tried on: passes of about so long, so many times
_ROUNDS = 5
_CLEARLY = 1.15  # times faster: what more threads gain less than that may cost a hundredfold once others use the cores


class PassTimer:
    """Forward and backward passes of a run, timed; they leave weights, running averages and random state alone.

    Args:
        model, task, statistics, normalizer: of the run.
        group: inputs and targets of one group's g n examples (g = 1: of one worker's n).
        per_worker: n.
    """

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        statistics: Statistics,
        normalizer: Normalizer,
        group: tuple[Any, Any],
        per_worker: int,
    ) -> None:
        self._model, self._task, self._statistics, self._normalize = model, task, statistics, normalizer
        self._group, self._per_worker = group, per_worker
        self._group_examples = num_examples(group[1])

    def _seconds_per_image(self, groups: int) -> float:
        inputs, targets = (repeated(part, groups) for part in self._group)
        inputs, device = self._normalize(inputs), self._normalize.device
        targets = mapped(lambda tensor: tensor.to(device), targets)
        examples = groups * self._group_examples
        self._statistics.begin_pass(examples // self._per_worker)
        start = time.perf_counter()
        loss, _ = self._task.train_pass(self._model, inputs, targets)
        loss.backward()  # type: ignore[no-untyped-call]
        if device.type == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - start) / examples

    def micro_batch(self, workers: range, one: bool) -> int:
        """Images of the fastest pass among 1, 2, 4, ... groups; one group's where only that is right."""
        n, sizes = self._group_examples, self._sizes(workers, one)
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
                    self._clear()
                    return n
            if time.perf_counter() > deadline and round_:
                break
        self._clear()
        return n * min(sizes, key=lambda size: min(times[size]))

    def cores_per_thread(self, cores: int, workers: range, one: bool) -> int:
        """Of 1, 2, 4, ... cores for each thread the most, so that more threads were not clearly faster.

        Threads that share a pass wait for each other after every operation: each wait lasts until the last of them
        was given a core. So the trial's measure is the median, not the minimum: a lucky pass is not the run's.

        Args:
            cores: that this process may use.
            workers: of this process.
            one: a pass holds one group.
        """
        ways = [1]
        while cores // ways[-1] > 1:
            ways.append(2 * ways[-1])
        deadline = time.perf_counter() + _TRIAL_SECONDS
        with torch.random.fork_rng(devices=()):  # the model may draw
            groups, seconds = self._short_pass(self._sizes(workers, one)[-1])
            times = {1: [seconds]}
            for way in [*ways[1:], *(_ROUNDS - 1) * ways]:
                if time.perf_counter() > deadline and len(times) > 1:
                    break
                torch.set_num_threads(max(cores // way, 1))
                times.setdefault(way, []).append(self._settled_seconds(groups))
        self._clear()
        medians = {way: statistics.median(seconds) for way, seconds in times.items()}
        return max(way for way, seconds in medians.items() if seconds <= _CLEARLY * min(medians.values()))

    def _sizes(self, workers: range, one: bool) -> list[int]:
        """Groups that a pass may hold."""
        n, sizes = self._group_examples, [1]
        while not one and sizes[-1] * 2 * n <= len(workers) * self._per_worker and sizes[-1] * n < _MOST_IMAGES:
            sizes.append(sizes[-1] * 2)
        return sizes

    def _short_pass(self, most_groups: int) -> tuple[int, float]:
        """Groups of a short pass, as many as it holds (which is the best case of many threads); its seconds."""
        groups, seconds = 1, self._seconds_per_image(1)  # this one also pays what a first pass pays
        if seconds * self._group_examples > _TRIAL_SECONDS:
            return groups, seconds
        seconds = self._settled_seconds(groups)
        while 2 * groups <= most_groups and 2 * groups * self._group_examples * seconds < _SHORT_SECONDS:
            groups *= 2
            seconds = self._settled_seconds(groups)
        return groups, seconds

    def _settled_seconds(self, groups: int) -> float:
        """Seconds an image of the last of some passes: a change of threads starts threads anew."""
        end = time.perf_counter() + _SHORT_SECONDS
        seconds = self._seconds_per_image(groups)
        while time.perf_counter() < end:
            seconds = self._seconds_per_image(groups)
        return seconds

    def _clear(self) -> None:
        for parameter in self._model.parameters():
            parameter.grad = None
