"""The seam between a run and its images, wherever they lie: whole minibatches of uint8 pixels with their labels.

Two members: :class:`TensorImages` in memory, and :class:`batchscale.data.image.stored.StoredImages` on disk.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from batchscale.data.contents import COUNT, PARTS, Contents, digest
from batchscale.data.threads import compute_alone
from batchscale.randomness import integers, key, uniform

# Streams: what a random number is for; part of the definition of a run, never to be renumbered (0 is the shuffle).
_FLIP, _CROP_Y, _CROP_X, _SCALE_ASPECT = range(1, 5)

Indices = npt.NDArray[np.int64]
Labelled = tuple[Any, Any]
"""Inputs and targets of m examples: of classification pixels (m, C, H, W) and labels int64 (m,)."""


@dataclass(frozen=True)
class Augmentation:
    """flip: mirror with probability 1/2; padding: zero-pad by so many pixels and cut out at a random place;
    scale_aspect: a part of random area and aspect, resized (of images on disk)."""

    flip: bool = False
    padding: int = 0
    scale_aspect: bool = False


def mirrored(seed: int, epochs: Indices, images: Indices) -> npt.NDArray[np.bool_]:
    """Which images are mirrored: a draw keyed by (seed, epoch, image)."""
    draws = [(epochs == e, int(e)) for e in np.unique(epochs)]
    flips = np.zeros(len(images), dtype=bool)
    for inside, epoch in draws:
        flips[inside] = uniform(key(seed, epoch, _FLIP), images[inside]) < 0.5
    return flips


def crop_draws(seed: int, epochs: Indices, images: Indices, draws: int) -> npt.NDArray[np.float64]:
    """Uniform numbers for every image's scale-and-aspect crop, (m, draws), keyed by (seed, epoch, image)."""
    numbers = np.empty((len(images), draws))
    for epoch in np.unique(epochs):
        inside = epochs == epoch
        numbers[inside] = uniform(key(seed, int(epoch), _SCALE_ASPECT), images[inside, None] * draws + np.arange(draws))
    return numbers


class Images(ABC):
    """The images and labels of one part of a data set: all that the feed, evaluation and the probe ask for.

    Attributes:
        labels: int64 (N,).
        shape: (C, H, W) of one image as the network gets it (any shape where images are given as floats).
        raw: uint8 pixels, yet to be normalised.
        steps_ahead: steps that the feed makes ready in advance.
    """

    labels: torch.Tensor
    shape: tuple[int, ...]
    raw: bool
    steps_ahead = 1

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def part(self, part: slice) -> Labelled:
        """Consecutive images, nothing random; another in the place of one that cannot be read, as in training."""

    def readable(self, part: slice) -> Labelled:
        """Those of consecutive images that can be read: what is evaluated."""
        return self.part(part)

    @abstractmethod
    def augmented(self, seed: int, augmentation: Augmentation) -> Callable[[Indices, Indices], Labelled]:
        """A function of (epochs, images), int64 (m,) each, that makes the pixels and labels of a minibatch.

        Each image's augmentation hangs on (seed, epoch, image) alone.
        """

    @abstractmethod
    def select(self, images: Indices) -> Images:
        """These images alone, in this order."""

    @abstractmethod
    def digests(self) -> dict[str, str]:
        """What the images are, in order, as far as is known without reading a file: property -> SHA256 or words."""

    def skipped(self) -> Mapping[str, str]:
        """Files passed over so far, and why."""
        return MappingProxyType({})


@dataclass(frozen=True)
class Splits:
    """A data set as a run uses it.

    Args:
        name: its name in recipes.
        train, test: what is trained and what is evaluated on.
        num_classes: classes, whether or not each occurs.
        passed_over: what lies beside the images and is none of them, in words.
    """

    name: str
    train: Images
    test: Images
    num_classes: int
    passed_over: str = ""

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(C, H, W) of every image (any shape where images are given as floats)."""
        return self.train.shape

    @cached_property
    def contents(self) -> Contents:
        """What is trained and evaluated on, as ``contents.py`` records and compares it."""
        contents: Contents = {"classes": self.num_classes}
        for part, images in zip(PARTS, (self.train, self.test), strict=True):
            contents[f"{part} {COUNT}"] = len(images)
            contents |= {f"{part} {name}": value for name, value in images.digests().items()}
        return contents


class TensorImages(Images):
    """Images in memory: a minibatch is one gather.

    Args:
        images: uint8 (N, C, H, W), or floating (N, ...).
        labels: int64 (N,).
    """

    def __init__(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        self.images, self.labels = images, labels
        self.shape, self.raw = tuple(images.shape[1:]), images.dtype == torch.uint8

    def part(self, part: slice) -> Labelled:
        """Slices of the tensors."""
        return self.images[part], self.labels[part]

    def select(self, images: Indices) -> TensorImages:
        """Copies of these images."""
        index = torch.from_numpy(images)
        return TensorImages(self.images[index], self.labels[index])

    def digests(self) -> dict[str, str]:
        """Of type, shape and bytes of the images, and of the labels."""
        kind = f"{self.images.dtype} {self.shape}".encode()
        return {"pixels": digest([kind, _bytes(self.images)]), "labels": digest([_bytes(self.labels)])}

    def _padded(self, padding: int) -> torch.Tensor:
        """Every place of every image's crop, (N, places, places, C, H, W), without copies of it."""
        height, width = self.shape[1:]
        padded = torch.nn.functional.pad(self.images, [padding] * 4)
        size = 2 * padding + 1
        n, c, y, x = padded.stride()
        return padded.as_strided((len(self), size, size, self.shape[0], height, width), (n, y, x, c, y, x))

    def augmented(self, seed: int, augmentation: Augmentation) -> Callable[[Indices, Indices], Labelled]:
        """One gather, then mirrors, on whole tensors."""
        padding = augmentation.padding
        padded = self._padded(padding) if padding else None

        def minibatch(epochs: Indices, images: Indices) -> Labelled:
            index = torch.from_numpy(images)
            picked = self.images.index_select(0, index) if padded is None else padded[index, *places(epochs, images)]
            if augmentation.flip:
                flipped = torch.from_numpy(mirrored(seed, epochs, images)).nonzero().squeeze(1)
                picked[flipped] = picked[flipped].flip(-1)
            return picked, self.labels.index_select(0, index)

        def places(epochs: Indices, images: Indices) -> tuple[torch.Tensor, torch.Tensor]:
            tops, lefts = np.empty_like(images), np.empty_like(images)
            for epoch in np.unique(epochs):
                inside = epochs == epoch
                tops[inside] = integers(key(seed, int(epoch), _CROP_Y), images[inside], 2 * padding + 1)
                lefts[inside] = integers(key(seed, int(epoch), _CROP_X), images[inside], 2 * padding + 1)
            return torch.from_numpy(tops), torch.from_numpy(lefts)

        return minibatch


def _bytes(tensor: torch.Tensor) -> npt.NDArray[np.uint8]:
    """The bytes of a tensor in its logical (row-major) order."""
    plain: npt.NDArray[np.uint8] = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return plain


def parts_ahead(read: Callable[[slice], Labelled], parts: Sequence[slice]) -> Iterator[Labelled]:
    """What ``read`` makes of every part, each part read while the one before it is used."""
    with ThreadPoolExecutor(1, "batchscale-evaluation", compute_alone) as pool:
        following = None
        for part in parts:
            current, following = following, pool.submit(read, part)
            if current is not None:
                yield current.result()
        if following is not None:
            yield following.result()
