"""Pairs of image and mask of any sizes: their files' bytes in memory, decoded as they are used; few pixels stay.

Training sees a window of one size at a keyed place, the same of image and mask; evaluation all of an image, in the
middle of a window that is as high as the highest image of the part and as wide as the widest, both rounded up to a
multiple of 32, which every shipped net can halve. Outside of its image a window is black, its mask IGNORED: each true
pixel counts once. The window hangs on the part alone, so it is the same for every W.

Cost: decoding 334 micrographs, 0.04 GB as pixels, at every use was 6 % of a U-Net's step. Pascal-VOC's 2,913 pairs
are 0.3 GB as files, 1.6 GB as pixels; a photograph of 500 x 375 is decoded in some 4 ms.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from batchscale.data.augmentation import Augmentation, Indices, crop_draws, mirrored
from batchscale.data.contents import digest
from batchscale.data.examples import Examples, Pairs
from batchscale.data.threads import compute_alone
from batchscale.structure import IGNORED

_MULTIPLE = 32
_KEPT_BYTES = 1 << 28  # pixels that every process may keep; more are decoded at every use


class ReadsPairs(Protocol):
    """Makes pixels of a file's bytes."""

    @property
    def channels(self) -> int:
        """C."""

    def image(self, file: BytesIO) -> torch.Tensor:
        """uint8 (C, H, W)."""

    def mask(self, file: BytesIO) -> torch.Tensor:
        """uint8 (H, W)."""


class SizedPairs(Examples):
    """Images with masks, of any sizes.

    Args:
        files: bytes of every image's file and of its mask's, already checked.
        sizes: height and width of every image, int64 (N, 2).
        read: decodes them.
        window: height and width of what the network gets.
        threads: that decode.
    """

    raw = True

    def __init__(
        self,
        files: Sequence[tuple[bytes, bytes]],
        sizes: Indices,
        read: ReadsPairs,
        window: tuple[int, int],
        threads: int,
    ) -> None:
        self._files, self._sizes, self._read, self._window, self._threads = files, sizes, read, window, threads
        self.shape = (read.channels, *window)
        self._keeps = int(sizes.prod(1).sum()) * (read.channels + 1) <= _KEPT_BYTES
        self._kept: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._pool = ThreadPoolExecutor(threads, "batchscale-decode", compute_alone)

    def __len__(self) -> int:
        return len(self._files)

    def select(self, examples: Indices) -> SizedPairs:
        """These pairs alone."""
        files = [self._files[example] for example in examples.tolist()]
        return SizedPairs(files, self._sizes[examples], self._read, self._window, self._threads)

    def whole(self) -> SizedPairs:
        """The same pairs in a window that holds all of each."""
        height, width = (-(-int(side) // _MULTIPLE) * _MULTIPLE for side in self._sizes.max(0))
        return SizedPairs(self._files, self._sizes, self._read, (height, width), self._threads)

    def part(self, part: slice) -> Pairs:
        """The middle of consecutive images."""
        examples = np.arange(*part.indices(len(self)))
        return self._windows(examples, self._room(examples) // 2, np.zeros(len(examples), dtype=bool))

    def augmented(self, seed: int, augmentation: Augmentation) -> Callable[[Indices, Indices], Pairs]:
        """Windows at places and mirrors drawn for each example alone; a smaller image lies anywhere in its window."""

        def minibatch(epochs: Indices, examples: Indices) -> Pairs:
            room = self._room(examples)
            draws = crop_draws(seed, epochs, examples, 2)
            corners = np.sign(room) * np.floor(draws * (abs(room) + 1)).astype(np.int64)
            flips = mirrored(seed, epochs, examples) if augmentation.flip else np.zeros(len(examples), dtype=bool)
            return self._windows(examples, corners, flips)

        return minibatch

    def digests(self) -> dict[str, str]:
        """Of the files' bytes."""
        images, masks = zip(*self._files, strict=True)
        return {"pixels": digest(images), "labels": digest(masks)}

    def moments(self) -> tuple[list[float], list[float]]:
        """Mean and deviation of every channel over all pixels of all images, from sums of whole numbers."""
        pixels, sums = 0, np.zeros((2, self._read.channels), dtype=np.int64)
        for image, _ in self._files:
            values = self._read.image(BytesIO(image)).flatten(1).long()
            pixels += values.shape[1]
            sums += torch.stack([values.sum(1), (values**2).sum(1)]).numpy()
        mean, squares = sums / pixels
        return mean.tolist(), [float(std) or 1.0 for std in np.sqrt(squares - mean**2)]

    def mask_pixels(self) -> torch.Tensor:
        """How many pixels of all masks have each value, (256,)."""
        masks = (self._read.mask(BytesIO(mask)) for _, mask in self._files)
        return sum((torch.bincount(mask.flatten(), minlength=IGNORED + 1) for mask in masks), torch.zeros(1).long())

    def _room(self, examples: Indices) -> Indices:
        """By how much images exceed the window, (m, 2); below zero where they are smaller."""
        room: Indices = self._sizes[examples] - np.array(self._window)
        return room

    def _windows(self, examples: Indices, corners: Indices, flips: npt.NDArray[np.bool_]) -> Pairs:
        height, width = self._window
        images = torch.zeros((len(examples), *self.shape), dtype=torch.uint8)
        masks = torch.full((len(examples), height, width), IGNORED, dtype=torch.uint8)

        def work(number: int) -> None:
            for window, picture in zip(
                (images[number], masks[number]), self._pixels(int(examples[number])), strict=True
            ):
                _place(window, picture, *corners[number].tolist())
                if flips[number]:
                    window.copy_(window.flip(-1))

        # To hand on what is there already takes longer than to copy it.
        at_hand = all(example in self._kept for example in examples.tolist())
        for _ in (map if at_hand else self._pool.map)(work, range(len(examples))):
            pass
        return images, masks

    def _pixels(self, example: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Image and mask; two threads may decode one, and keep the same."""
        if example in self._kept:
            return self._kept[example]
        image, mask = self._files[example]
        pixels = self._read.image(BytesIO(image)), self._read.mask(BytesIO(mask))
        if self._keeps:
            self._kept[example] = pixels
        return pixels


def _place(window: torch.Tensor, picture: torch.Tensor, top: int, left: int) -> None:
    """Fill a window whose upper left corner lies at (top, left) of a picture, as far as they overlap."""
    height, width = window.shape[-2:]
    rows = slice(max(top, 0), min(top + height, picture.shape[-2]))
    columns = slice(max(left, 0), min(left + width, picture.shape[-1]))
    window[..., rows.start - top : rows.stop - top, columns.start - left : columns.stop - left] = picture[
        ..., rows, columns
    ]
