"""Batch norm's statistics measured anew for an evaluation: over stated examples, at the weights that are evaluated.

With P passes of one group each (g workers of n images), m_j and v_j the mean and the biased variance of a channel in
pass j, and C the values that the channel has in all of them:

    mean = (1/P) sum_j m_j
    variance = C / (C - 1) (1/P) sum_j (v_j + (m_j - mean)^2)

Running averages lag behind the weights by about 1 / m steps (m = 0.1: ten); these do not. They are a copy for the
evaluation and for what the run leaves, never the run's state: its bits do not hang on how often it is evaluated.

Cost: one forward pass over the examples, shared by the processes, and one all-reduce of 64 x 2 numbers a channel for
every 64 passes. Source: Wu and Johnson 2021, "Rethinking 'Batch' in BatchNorm", section 3 (PreciseBN).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from batchscale.comm import World
from batchscale.data.examples import Examples
from batchscale.data.feed import Normalizer
from batchscale.data.feed.delivery import batches_ahead
from batchscale.worker.batch_norm import WorkerBatchNorm, statistics_of
from batchscale.worker.statistics import Statistics

_BLOCK_PASSES = 64  # whose statistics are summed at once: memory does not grow with the examples


class Recomputation:
    """The statistics of a model's batch norm over stated examples, in the place of the running averages for a while.

    Args:
        model: with its batch norm replaced; but for batch norm it runs as in evaluation (nothing is dropped).
        layers: its batch-norm layers that have running averages.
        statistics: where a pass leaves theirs.
        examples: M of them, in the order of the passes, seen as in evaluation; what does not fill a pass is left out.
        normalizer: as in training.
        world: the processes that share the passes.
        clock: of ``take_seconds``.

    """

    def __init__(
        self,
        model: nn.Module,
        layers: list[WorkerBatchNorm],
        statistics: Statistics,
        examples: Examples,
        normalizer: Normalizer,
        world: World,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._model, self._layers, self._statistics = model, layers, statistics
        self._examples, self._normalize, self._world = examples, normalizer, world
        self._channels = sum(layer.num_features for layer in layers)
        self._device = statistics.rows.device
        self._clock = clock
        self._seconds = 0.0

    @contextmanager
    def in_place(self, per_worker: int) -> Iterator[None]:
        """Let the model hold the statistics at its weights of now; its running averages come back bit by bit.

        Args:
            per_worker: n of the passes.
        """
        start = self._clock()
        measured = self.measure(per_worker)
        running = [buffer for layer in self._layers for buffer, _ in statistics_of(layer)]
        averages = [buffer.clone() for buffer in running]
        try:
            fill_buffers(running, measured)
            self._seconds += self._clock() - start
            yield
        finally:
            fill_buffers(running, averages)

    def take_seconds(self) -> float:
        """Seconds spent on statistics since the last call."""
        seconds, self._seconds = self._seconds, 0.0
        return seconds

    @torch.no_grad()
    def measure(self, per_worker: int) -> list[torch.Tensor]:
        """Mean and unbiased variance of every layer in turn, (channels,); the same bits for every W.

        A layer that does not run in evaluation (an auxiliary classifier's), or never trains, keeps its averages.

        Args:
            per_worker: n of the passes.
        """
        group_images = per_worker * self._statistics.span
        passes = len(self._examples) // group_images
        mean, squares, variances, values = torch.zeros((4, self._channels), dtype=torch.float64, device=self._device)
        for first in range(0, passes, _BLOCK_PASSES):
            block = self._block(range(first, min(first + _BLOCK_PASSES, passes)), group_images)
            for number, (pass_mean, pass_variance, pass_values) in enumerate(block, first + 1):
                away = pass_mean - mean
                mean += away / number
                squares += away * (pass_mean - mean)  # Welford's sum of (m_j - mean)^2
                variances += pass_variance
                values += pass_values
        unbiased = (variances + squares) / passes * (values / (values - 1))
        lengths = [layer.num_features for layer in self._layers]
        parts = zip(self._layers, mean.split(lengths), unbiased.split(lengths), values.split(lengths), strict=True)
        return [
            torch.where(ran > 0, statistic, buffer.double())
            for layer, *statistics, ran in parts
            for statistic, (buffer, _) in zip(statistics, statistics_of(layer), strict=True)
        ]

    def _block(self, numbers: range, group_images: int) -> torch.Tensor:
        """Mean, biased variance and number of values of every channel in these passes, (passes, 3, channels).

        A pass runs on one process and is zero on the others: their sum rounds nothing.
        """
        block = torch.zeros((len(numbers), 3, self._channels), dtype=torch.float64, device=self._device)
        own_numbers = numbers[self._world.rank :: self._world.size]
        slices = [slice(number * group_images, (number + 1) * group_images) for number in own_numbers]
        with self._only_batch_norm_trains():
            batches = batches_ahead(self._examples.part, slices, self._normalize, self._device)
            for number, batch in zip(own_numbers, batches, strict=True):
                assert batch is not None  # examples that are trained on can be read, or were passed over
                self._statistics.begin_pass(self._statistics.span)
                self._model(batch.inputs)
                self._note_pass(block[number - numbers.start])
        self._world.all_reduce(block, "all-reduce of batch-norm statistics")
        return block

    def _note_pass(self, noted: torch.Tensor) -> None:
        """Write what the pass left in ``Statistics`` into noted, (3, channels)."""
        row = self._statistics.rows[0].double()
        start = 0
        for layer in self._layers:
            channels, values = layer.num_features, self._statistics.values.get(layer.offset)
            if values is not None:
                means, unbiased = row[layer.offset :][: 2 * channels].chunk(2)
                place = noted[:, start : start + channels]
                place[0], place[1], place[2] = means, unbiased * ((values - 1) / values), values
            start += channels

    @contextmanager
    def _only_batch_norm_trains(self) -> Iterator[None]:
        """Evaluation mode but for the batch norms that train: a model may keep some of them in evaluation mode."""
        modes = [(module, module.training) for module in self._model.modules()]
        self._model.eval()
        for module, trains in modes:
            module.training = trains and isinstance(module, WorkerBatchNorm)
        try:
            yield
        finally:
            for module, trains in modes:
                module.training = trains


@torch.no_grad()
def fill_buffers(buffers: Sequence[torch.Tensor], contents: Sequence[torch.Tensor]) -> None:
    """buffers <- contents, each of its shape."""
    for buffer, content in zip(buffers, contents, strict=True):
        buffer.copy_(content)
