"""The feed: the passes of every step, the next ones made ready while the last step computes.

Images come as uint8, a process's part of a minibatch at once; floating-point arithmetic (normalisation)
acts on one pass at a time, so that in exact mode it never sees more or less than one worker's n images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
import torch

from batchscale.data.augmentation import Augmentation, Indices
from batchscale.data.examples import Examples
from batchscale.data.threads import compute_alone
from batchscale.minibatch import StepPlan
from batchscale.order import StreamOrder
from batchscale.structure import mapped, num_examples, part

_CACHED_NUMBERS = 1 << 18  # normalised at once: 1 MiB of float32
_BLOCK_IMAGES = 1 << 14  # shuffled at once: 0.5 ms a step for 256 images becomes 0.05


@dataclass(frozen=True)
class Batch:
    """The examples of one pass: inputs as the network gets them, such as float (m, C, H, W), and their targets."""

    inputs: Any
    targets: Any


class Normalizer:
    """(x - mean) / std for each channel, of uint8 images; floating images are only cast.

    Args:
        mean, std: for each channel, in 0..255 units.
        dtype: of the result.
        memory_format: of the result.
        device: of the result.
    """

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        dtype: torch.dtype,
        memory_format: torch.memory_format,
        device: torch.device,
    ) -> None:
        shape = (1, len(mean), 1, 1)
        self._mean = torch.tensor(mean, dtype=dtype, device=device).view(shape)
        self._scale = (1.0 / torch.tensor(std, dtype=torch.float64)).to(device, dtype).view(shape)
        self._dtype, self._format, self.device = dtype, memory_format, device

    def __call__(self, inputs: Any) -> Any:
        """Inputs of any structure -> fresh tensors on the device.

        uint8 (m, C, H, W), or (C, H, W) in a list, is normalised, floating (m, ...) only cast; other whole numbers,
        such as tokens, stay as they are.
        """
        return mapped(self._tensor, inputs)

    def _tensor(self, images: torch.Tensor) -> torch.Tensor:
        if images.dtype != torch.uint8:
            return images.to(self.device, self._dtype if images.is_floating_point() else None, copy=True)
        if images.ndim == 3:
            return self._tensor(images[None])[0]
        images = images.to(self.device, non_blocking=True)
        if self._format is not torch.channels_last or images.shape[1] == 1:
            return images.to(self._dtype, memory_format=self._format).sub_(self._mean).mul_(self._scale)
        return self._whole_rows(images)

    def _whole_rows(self, images: torch.Tensor) -> torch.Tensor:
        """The same numbers with channels last: on rows of W C numbers, where kernels vectorise (not on C numbers), and
        on so few images at once that they stay in the processor's cache."""
        channels, width = images.shape[1], images.shape[3]
        rows = images.permute(0, 2, 3, 1).flatten(2)
        normalized = torch.empty(rows.shape, dtype=self._dtype, device=self.device)
        mean, scale = self._mean.flatten().repeat(width), self._scale.flatten().repeat(width)
        at_once = len(rows) if normalized.is_cuda else max(_CACHED_NUMBERS // rows[0].numel(), 1)
        for pixels, out in zip(torch.split(rows, at_once), torch.split(normalized, at_once), strict=True):
            out.copy_(pixels).sub_(mean).mul_(scale)
        return normalized.view(*rows.shape[:2], width, channels).permute(0, 3, 1, 2)


class Feed:
    """Passes of one process, for any step: a pure function of (order, step), the next steps' made in advance.

    Args:
        images: what is trained on, and its labels.
        plan: the steps of the run.
        workers: k -> the numbers of this process's workers.
        micro_batch: images in one pass at most, but never less than a group's.
        order: of the stream.
        augmentation: of the images.
        normalizer: makes the floats.
        span: workers of a group, which a pass never parts.
        fewest_passes: step -> how many passes it has at least, where its workers are so many.
    """

    def __init__(
        self,
        images: Examples,
        *,
        plan: StepPlan,
        workers: Callable[[int], range],
        micro_batch: int,
        order: StreamOrder,
        augmentation: Augmentation,
        normalizer: Normalizer,
        span: int = 1,
        fewest_passes: Callable[[int], int] = lambda step: 1,
    ) -> None:
        self._fewest_passes = fewest_passes
        self._plan, self._workers, self._micro_batch, self._span = plan, workers, micro_batch, span
        self._order, self._normalize = order, normalizer
        self._gather, self._steps_ahead = images.augmented(order.seed, augmentation), images.steps_ahead
        self._block: tuple[int, Indices, Indices] = (0, np.empty((0, 0), np.int64), np.empty((0, 0), np.int64))
        self._block_lock = Lock()
        self._ahead: dict[int, Future[list[Batch]]] = {}
        self._pool = ThreadPoolExecutor(images.steps_ahead, "batchscale-feed", compute_alone)

    def indices(self, step: int) -> tuple[Indices, Indices]:
        """(epoch, image) of every image of this process in this step, in worker order."""
        with self._block_lock:
            first, epochs, images = self._block
            if not first <= step < first + len(images):
                self._block = first, epochs, images = step, *self._shuffle_block(step)
        return epochs[step - first], images[step - first]

    def _shuffle_block(self, first: int) -> tuple[Indices, Indices]:
        """Epochs and images of steps of one minibatch from ``first`` on, (steps, images): they share one fixed cost."""
        phase = self._plan.phase(first)
        workers, n = self._workers(phase.minibatch.workers), phase.minibatch.per_worker
        hosted = np.arange(workers.start * n, workers.stop * n)
        steps = np.arange(min(max(_BLOCK_IMAGES // len(hosted), 1), self._plan.same_until(first) - first))
        positions = phase.position(first) + steps[:, None] * phase.minibatch.images + hosted
        epochs, places = np.divmod(positions, phase.epoch_images)
        images = np.empty_like(places)
        for epoch in np.unique(epochs):
            inside = epochs == epoch
            images[inside] = self._order.at_places(int(epoch), places[inside])
        return epochs, images

    def _make(self, step: int) -> list[Batch]:
        inputs, targets = self._gather(*self.indices(step))
        device, total = self._normalize.device, num_examples(targets)
        group = self._plan.minibatch_at(step).per_worker * self._span
        groups, fewest, at_once = -(-total // group), self._fewest_passes(step), max(self._micro_batch // group, 1)
        if -(-groups // at_once) < fewest:
            at_once = -(-groups // fewest)
        most = at_once * group
        passes = [slice(start, min(start + most, total)) for start in range(0, total, most)]
        return [
            Batch(
                self._normalize(part(inputs, examples)),
                mapped(lambda tensor: tensor.to(device, non_blocking=True), part(targets, examples)),
            )
            for examples in passes
        ]

    def passes(self, step: int) -> list[Batch]:
        """The passes of this step, in worker order; the next steps' are begun before this returns."""
        ahead = self._ahead.pop(step, None)
        wanted = range(step + 1, min(step + 1 + self._steps_ahead, self._plan.total_steps))
        for skipped in self._ahead.keys() - set(wanted):
            self._ahead.pop(skipped).cancel()
        now = ahead.result() if ahead is not None else self._make(step)
        for later in wanted:
            if later not in self._ahead:
                self._ahead[later] = self._pool.submit(self._make, later)
        return now

    def close(self) -> None:
        """Stop the feed's threads."""
        self._pool.shutdown(wait=True, cancel_futures=True)
