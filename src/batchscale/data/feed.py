"""The feed: the passes of every step, the next ones made ready while the last step computes.

Images are gathered, cropped and mirrored as uint8 on whole tensors; floating-point arithmetic (normalisation)
acts on one pass at a time, so that in exact mode it never sees more or less than one worker's n images.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from batchscale.minibatch import Minibatch, StepPlan
from batchscale.randomness import integers, key, shuffled, uniform

# Streams: what a random number is for; part of the definition of a run, never to be renumbered.
_SHUFFLE, _FLIP, _CROP_Y, _CROP_X = range(4)

_BLOCK_IMAGES = 1 << 14  # shuffled at once: 0.5 ms a step for 256 images becomes 0.05

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Augmentation:
    """flip: mirror with probability 1/2; padding: zero-pad by so many pixels and cut out at a random place."""

    flip: bool = False
    padding: int = 0


@dataclass(frozen=True)
class Batch:
    """The images of one pass: float (m, C, H, W), labels int64 (m,)."""

    images: torch.Tensor
    labels: torch.Tensor


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

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """images (m, C, H, W) uint8, or floating (m, ...) -> a fresh tensor of dtype on the device."""
        if images.dtype != torch.uint8:
            return images.to(self.device, self._dtype, copy=True)
        images = images.to(self.device, non_blocking=True)
        return images.to(self._dtype, memory_format=self._format).sub_(self._mean).mul_(self._scale)


class Feed:
    """Passes of one process, for any step: a pure function of (seed, step), the next step's made in advance.

    Args:
        images: (N, C, H, W) uint8, or floating (N, ...).
        labels: int64 (N,).
        minibatch: k x n.
        plan: the steps of the run.
        workers: the numbers of this process's workers.
        pass_workers: workers in one pass at most.
        seed: of the run.
        augmentation: of uint8 images.
        normalizer: makes the floats.
    """

    def __init__(
        self,
        images: torch.Tensor,
        labels: torch.Tensor,
        *,
        minibatch: Minibatch,
        plan: StepPlan,
        workers: range,
        pass_workers: int,
        seed: int,
        augmentation: Augmentation,
        normalizer: Normalizer,
    ) -> None:
        self._labels, self._minibatch, self._plan, self._workers = labels, minibatch, plan, workers
        self._pass_images = pass_workers * minibatch.per_worker
        self._seed, self._augmentation, self._normalize = seed, augmentation, normalizer
        self._images = images
        if augmentation.padding:
            height, width = images.shape[2:]
            padded = torch.nn.functional.pad(images, [augmentation.padding] * 4)
            size = 2 * augmentation.padding + 1
            n, c, y, x = padded.stride()
            self._images = padded.as_strided(
                (len(images), size, size, images.shape[1], height, width), (n, y, x, c, y, x)
            )
        self._block: tuple[int, Indices, Indices] = (0, np.empty((0, 0), np.int64), np.empty((0, 0), np.int64))
        self._ahead: tuple[int, Future[list[Batch]]] | None = None
        self._pool = ThreadPoolExecutor(1, "batchscale-feed")

    def indices(self, step: int) -> tuple[Indices, Indices]:
        """(epoch, image) of every image of this process in this step, in worker order."""
        first, epochs, images = self._block
        if not first <= step < first + len(images):
            self._block = first, epochs, images = step, *self._shuffle_block(step)
        return epochs[step - first], images[step - first]

    def _shuffle_block(self, first: int) -> tuple[Indices, Indices]:
        """Epochs and images of the steps from ``first`` on, (steps, images): they share a shuffle's fixed cost."""
        n = self._minibatch.per_worker
        mine = np.arange(self._workers.start * n, self._workers.stop * n)
        steps = np.arange(first, min(first + max(_BLOCK_IMAGES // len(mine), 1), self._plan.total_steps))
        epochs, places = np.divmod(steps[:, None] * self._minibatch.images + mine, self._plan.epoch_images)
        images = np.empty_like(places)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            images[here] = shuffled(key(self._seed, int(epoch), _SHUFFLE), places[here], self._plan.training_images)
        return epochs, images

    def _draws(self, epochs: Indices, images: Indices) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        flips = np.zeros(len(images), dtype=bool)
        tops, lefts = np.zeros_like(images), np.zeros_like(images)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            which = images[here]
            if self._augmentation.flip:
                flips[here] = uniform(key(self._seed, int(epoch), _FLIP), which) < 0.5
            if self._augmentation.padding:
                bound = 2 * self._augmentation.padding + 1
                tops[here] = integers(key(self._seed, int(epoch), _CROP_Y), which, bound)
                lefts[here] = integers(key(self._seed, int(epoch), _CROP_X), which, bound)
        return torch.from_numpy(flips), torch.from_numpy(tops), torch.from_numpy(lefts)

    def _gather(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        epochs, images = self.indices(step)
        index = torch.from_numpy(images)
        flips, tops, lefts = self._draws(epochs, images)
        padded = self._augmentation.padding > 0
        picked = self._images[index, tops, lefts] if padded else self._images.index_select(0, index)
        if self._augmentation.flip:
            mirrored = flips.nonzero().squeeze(1)
            picked[mirrored] = picked[mirrored].flip(-1)
        return picked, self._labels.index_select(0, index)

    def _make(self, step: int) -> list[Batch]:
        images, labels = self._gather(step)
        device = self._normalize.device
        return [
            Batch(self._normalize(i), label.to(device, non_blocking=True))
            for i, label in zip(
                torch.split(images, self._pass_images), torch.split(labels, self._pass_images), strict=True
            )
        ]

    def passes(self, step: int) -> list[Batch]:
        """The passes of this step, in worker order; the next step's are begun before this returns."""
        ahead, self._ahead = self._ahead, None
        made = ahead[1].result() if ahead is not None and ahead[0] == step else self._make(step)
        if step + 1 < self._plan.total_steps:
            self._ahead = (step + 1, self._pool.submit(self._make, step + 1))
        return made

    def close(self) -> None:
        """Stop the feed's thread."""
        self._pool.shutdown(wait=True, cancel_futures=True)
