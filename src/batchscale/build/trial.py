"""The choice of threads and micro-batch: passes of the run, timed before training, for some seconds.

The micro-batch is tried as the run will use it: all passes of a step, on all processes at once, whose slowest counts.

Cost: a second for the threads, two to eight for the micro-batch; a model whose pass takes longer than a second pays two
passes for each. On a GPU the micro-batch has five seconds, behind a pass of each size that loads libraries for as long
as that takes.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from batchscale.build.memory import Memory, does_not_fit, is_out_of_memory, memory_of
from batchscale.data.feed import Normalizer
from batchscale.structure import mapped, num_examples, repeated
from batchscale.task import Task
from batchscale.training.clock import Clock, clock_of
from batchscale.worker.statistics import Statistics

_TRIAL_SECONDS = 1.0
_GPU_TRIAL_SECONDS = 5.0  # of the micro-batch: every size may load kernels of its own
_MOST_IMAGES = 1024  # of a pass: larger ones were not faster
_SHORT_SECONDS = 0.025  # what the threads are tried on: passes of about so long, so many times
_ROUNDS = 5
_FEWEST_ROUNDS, _MOST_ROUNDS = 3, 11  # of the micro-batch's timed passes; the first also pays for new memory
_FEWEST_ROUNDS_SECONDS = 4.0  # that these may take; at least one is made
_CLEARLY = 1.15  # times faster: what more threads gain less than that may cost a hundredfold once others use the cores


@dataclass(frozen=True)
class TriedSizes:
    """Sizes of a pass, in groups, smallest first.

    Attributes:
        sizes: that were run.
        largest: that fits into memory; None where none was too large.
    """

    sizes: list[int]
    largest: int | None

    def within(self, largest: int | None) -> list[int]:
        """The sizes up to the largest that fits everywhere."""
        return [size for size in self.sizes if largest is None or size <= largest]


class PassTimer:
    """Forward and backward passes of a run, timed; they leave weights, running averages and random state alone.

    Args:
        model, task, statistics, normalizer: of the run.
        group: inputs and targets of one group's g n examples (g = 1: of one worker's n).
        per_worker: n.
        clock, memory: of the device; None for those of the normalizer's.
    """

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        statistics: Statistics,
        normalizer: Normalizer,
        group: tuple[Any, Any],
        per_worker: int,
        clock: Clock | None = None,
        memory: Memory | None = None,
    ) -> None:
        self._model, self._task, self._statistics, self._normalize = model, task, statistics, normalizer
        self._group, self._per_worker = group, per_worker
        self._group_examples = num_examples(group[1])
        device = normalizer.device
        self._clock, self._memory = clock or clock_of(device), memory or memory_of(device)
        self._trial_seconds = _GPU_TRIAL_SECONDS if device.type == "cuda" else _TRIAL_SECONDS

    def _seconds_per_image(self, groups: int) -> float:
        inputs, targets = (repeated(part, groups) for part in self._group)
        inputs, device = self._normalize(inputs), self._normalize.device
        targets = mapped(lambda tensor: tensor.to(device), targets)
        examples = groups * self._group_examples
        self._statistics.begin_part(examples // self._per_worker)
        start = self._clock.mark()
        loss, outputs = self._task.train_pass(self._model, inputs, targets)
        if self._task.training_counts:
            self._task.counts(outputs, targets)
        loss.backward()  # type: ignore[no-untyped-call]
        return self._clock.seconds(start, self._clock.mark()) / examples

    def run_once(self, groups: int) -> None:
        """A pass of so many groups, its gradients forgotten."""
        self._seconds_per_image(groups)
        self._clear()

    def tried_sizes(self, workers: range) -> TriedSizes:
        """Run a pass of 1, 2, 4, ... groups, as many as the trial's time and this process's memory hold.

        Raises:
            RecipeError: not even one group fits.
        """
        sizes = self._sizes(workers, False)
        if len(sizes) == 1:
            return TriedSizes(sizes, None)
        if error := self._lack_of_memory(1):
            raise does_not_fit(self._per_worker, self._group_examples, error)
        # The one before has paid what the first of all pays.
        seconds = self._seconds_per_image(1) * self._group_examples
        largest, count = None, 1
        # All sizes up to one of m groups are 2 m - 1 groups together: so long lasts one round.
        while count < len(sizes) and seconds * (2 * sizes[count] - 1) <= self._trial_seconds:
            if self._lack_of_memory(sizes[count]) or self._memory.is_short():
                largest = sizes[count - 1]
                break
            count += 1
        self._clear()
        self._memory.release()
        return TriedSizes(sizes[:count], largest)

    def fastest(self, sizes: list[int], workers: range, longest: Callable[[float], float]) -> int:
        """Of some sizes, in groups, the one that makes a step fastest; timed in turn.

        Args:
            sizes: the same on every process.
            workers: of this process.
            longest: (seconds of this process) -> the longest of all processes, which begin the next step together.
        """
        if len(sizes) == 1:
            return sizes[0]
        groups = self._groups(workers)
        if groups >= 2 * sizes[-1]:  # a step would take too long: of each size as many groups as the largest holds
            groups = sizes[-1]
        times: dict[int, list[float]] = {size: [] for size in sizes}
        spent, most_seconds = 0.0, max(self._trial_seconds, _FEWEST_ROUNDS_SECONDS)
        for rounds in range(_MOST_ROUNDS):
            if 0 < rounds < _FEWEST_ROUNDS and spent * (rounds + 1) / rounds > most_seconds:  # with another round
                break
            if rounds >= _FEWEST_ROUNDS and spent > self._trial_seconds:
                break
            for size in sizes:
                times[size].append(longest(self._step_seconds(groups, size)))
                spent += times[size][-1]
        self._clear()
        self._memory.release()  # or the run would go on in what the largest passes have left: 3 % slower
        return min(sizes, key=lambda size: min(times[size]))

    def _groups(self, workers: range) -> int:
        """That a process hosts."""
        return len(workers) * self._per_worker // self._group_examples

    def _step_seconds(self, groups: int, size: int) -> float:
        """Of all passes of a step."""
        passes = [size] * (groups // size) + [groups % size] * (groups % size > 0)
        return sum(self._seconds_per_image(one) * one * self._group_examples for one in passes)

    def _lack_of_memory(self, groups: int) -> Exception | None:
        """Run a pass; the allocator's error where it does not fit."""
        self._memory.release()
        try:
            self._seconds_per_image(groups)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return error.with_traceback(None)  # whose frames hold the pass's tensors
        return None

    def _since(self, begun: Any) -> float:
        return self._clock.seconds(begun, self._clock.mark())

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
        begun = self._clock.mark()
        with torch.random.fork_rng(devices=()):  # the model may draw
            groups, seconds = self._short_pass(self._sizes(workers, one)[-1])
            times = {1: [seconds]}
            for way in [*ways[1:], *(_ROUNDS - 1) * ways]:
                if self._since(begun) > _TRIAL_SECONDS and len(times) > 1:
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
        begun = self._clock.mark()
        seconds = self._seconds_per_image(groups)
        while self._since(begun) < _SHORT_SECONDS:
            seconds = self._seconds_per_image(groups)
        return seconds

    def _clear(self) -> None:
        for parameter in self._model.parameters():
            parameter.grad = None
