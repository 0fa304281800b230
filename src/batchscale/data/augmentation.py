"""What is done to a training example at random: draws keyed by (seed, epoch, example), the same for every W."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from batchscale.randomness import integers, key, uniform

# Streams: what a random number is for; part of the definition of a run, never to be renumbered (0 is the shuffle).
_FLIP, _CROP_Y, _CROP_X, _SCALE_ASPECT = range(1, 5)

Indices = npt.NDArray[np.int64]


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


def crop_places(seed: int, epochs: Indices, examples: Indices, padding: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Top and left of every example's crop after padding, keyed by (seed, epoch, example)."""
    tops, lefts = np.empty_like(examples), np.empty_like(examples)
    for epoch in np.unique(epochs):
        inside = epochs == epoch
        tops[inside] = integers(key(seed, int(epoch), _CROP_Y), examples[inside], 2 * padding + 1)
        lefts[inside] = integers(key(seed, int(epoch), _CROP_X), examples[inside], 2 * padding + 1)
    return torch.from_numpy(tops), torch.from_numpy(lefts)


class Draw(NamedTuple):
    """What is random in a minibatch of examples in memory: a row an example.

    Attributes:
        examples: their numbers.
        place: top and left of every crop; () without crops.
        flips: (which are mirrored,); () without mirrors.
    """

    examples: torch.Tensor
    place: tuple[torch.Tensor, ...] = ()
    flips: tuple[torch.Tensor, ...] = ()


def draw(seed: int, augmentation: Augmentation, epochs: Indices, examples: Indices) -> Draw:
    """The numbers of a minibatch, each example's keyed by (seed, epoch, example)."""
    padding = augmentation.padding
    place = crop_places(seed, epochs, examples, padding) if padding else ()
    flips = (torch.from_numpy(mirrored(seed, epochs, examples)),) if augmentation.flip else ()
    return Draw(torch.from_numpy(examples), place, flips)


def mirror(picture: torch.Tensor, flips: torch.Tensor) -> None:
    """Mirror these pictures of a minibatch, in place."""
    if picture.is_cpu:
        flipped = flips.nonzero().squeeze(1)
        picture[flipped] = picture[flipped].flip(-1)
    else:  # how many they are, the host would have to wait for
        picture.copy_(torch.where(flips.view(-1, *[1] * (picture.ndim - 1)), picture.flip(-1), picture))
