"""Images with boxes, of any sizes: decoded as they are used, mirrored and resized with their boxes and masks.

Inputs are a list of uint8 images (C, H, W), targets a list of mappings: boxes float32 (b, 4) as x1, y1, x2, y2 in
pixels, labels int64 (b,) from 1, crowd bool (b,), and masks uint8 (b, H, W) where they are read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from batchscale.data.augmentation import Augmentation, Indices, mirrored
from batchscale.data.contents import digest
from batchscale.data.examples import Examples, Pairs
from batchscale.data.masks.pair_headers import orientation_of
from batchscale.data.threads import compute_alone
from batchscale.errors import DataError, one_line

_STEPS_AHEAD = 3
_UPRIGHT = 4  # EXIF orientations up to it leave height and width as they are

Target = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Photograph:
    """An image and what is on it.

    Attributes:
        name: for errors, and in what its data set is known by.
        size: H, W.
        boxes: float32 (b, 4), inside the image.
        labels: int64 (b,), from 1.
        crowd: bool (b,): regions that are no example and no error.
        pixels: uint8 (C, H, W).
        masks: uint8 (b, H, W); None where none are read.
    """

    name: str
    size: tuple[int, int]
    boxes: torch.Tensor
    labels: torch.Tensor
    crowd: torch.Tensor
    pixels: Callable[[], torch.Tensor]
    masks: Callable[[], torch.Tensor] | None = None


class BoxedImages(Examples):
    """Photographs in their order.

    Args:
        photographs: one or more.
        resize: H, W of every image; None: as they are.
        threads: that decode.
    """

    steps_ahead = _STEPS_AHEAD
    raw = True

    def __init__(self, photographs: Sequence[Photograph], resize: tuple[int, int] | None, threads: int) -> None:
        self.photographs, self._resize, self._threads = photographs, resize, threads
        height, width = resize or (max(p.size[axis] for p in photographs) for axis in (0, 1))
        self.shape = (len(photographs[0].pixels()), height, width)
        self._pool = ThreadPoolExecutor(threads, "batchscale-decode", compute_alone)

    def __len__(self) -> int:
        return len(self.photographs)

    def part(self, part: slice) -> Pairs:
        """Consecutive photographs as they are."""
        photographs = self.photographs[part]
        return self._pairs(photographs, [False] * len(photographs))

    def augmented(self, seed: int, augmentation: Augmentation) -> Callable[[Indices, Indices], Pairs]:
        """Mirrors, each drawn for its photograph alone."""

        def minibatch(epochs: Indices, examples: Indices) -> Pairs:
            flips = mirrored(seed, epochs, examples) if augmentation.flip else np.zeros(len(examples), dtype=bool)
            return self._pairs([self.photographs[number] for number in examples], flips.tolist())

        return minibatch

    def check_augmented(self, crops: bool) -> None:
        """Mirrors alone.

        Raises:
            DataError: crops, which would cut boxes.
        """
        if crops:
            raise DataError("data.augment.crop=padded: would cut boxes; use data.augment.crop=none")

    def select(self, examples: Indices) -> BoxedImages:
        """These photographs alone; their files are not touched."""
        return BoxedImages([self.photographs[number] for number in examples], self._resize, self._threads)

    def digests(self) -> dict[str, str]:
        """Of names, sizes, boxes, labels and crowds; no file is read."""
        blocks = (
            block
            for p in self.photographs
            for block in (f"{p.name} {p.size}".encode(), p.boxes.numpy(), p.labels.numpy(), p.crowd.numpy())
        )
        return {"labels": digest(blocks), "pixels": f"resized to {self._resize}" if self._resize else "as they are"}

    def _pairs(self, photographs: Sequence[Photograph], flips: Sequence[bool]) -> Pairs:
        rendered = list(self._pool.map(partial(_rendered, self._resize), photographs, flips))
        return [image for image, _ in rendered], [target for _, target in rendered]


def _rendered(resize: tuple[int, int] | None, photograph: Photograph, flip: bool) -> tuple[torch.Tensor, Target]:
    image = photograph.pixels()
    if image.shape[1:] != photograph.size:
        raise DataError(
            f"{photograph.name}: is {image.shape[2]} x {image.shape[1]} pixels, and its boxes are for "
            f"{photograph.size[1]} x {photograph.size[0]}: must be the same; mend the annotation, or the image"
        )
    target = {"boxes": photograph.boxes, "labels": photograph.labels, "crowd": photograph.crowd}
    if photograph.masks is not None:
        target["masks"] = photograph.masks()
    if resize is not None and resize != photograph.size:
        image, target = _resized(image, target, resize)
    return mirror(image, target) if flip else (image, target)


def mirror(image: torch.Tensor, target: Target) -> tuple[torch.Tensor, Target]:
    """Left and right changed: x1, x2 -> W - x2, W - x1; masks alike."""
    x1, y1, x2, y2 = target["boxes"].unbind(1)
    width = image.shape[2]
    mirrored_target = target | {"boxes": torch.stack([width - x2, y1, width - x1, y2], 1)}
    if "masks" in target:
        mirrored_target["masks"] = target["masks"].flip(-1)
    return image.flip(-1), mirrored_target


def _resized(image: torch.Tensor, target: Target, size: tuple[int, int]) -> tuple[torch.Tensor, Target]:
    """By Pillow's bilinear filter over all pixels that a new one covers; masks by the nearest."""
    height, width = size
    factors = torch.tensor([width / image.shape[2], height / image.shape[1]] * 2)
    resized_target = target | {"boxes": target["boxes"] * factors}
    if "masks" in target:
        masks = [_resized_picture(mask, size, Image.Resampling.NEAREST) for mask in target["masks"]]
        resized_target["masks"] = torch.stack(masks) if masks else target["masks"].new_zeros((0, height, width))
    channels = [_resized_picture(channel, size, Image.Resampling.BILINEAR) for channel in image]
    return torch.stack(channels), resized_target


def _resized_picture(picture: torch.Tensor, size: tuple[int, int], how: Image.Resampling) -> torch.Tensor:
    return torch.from_numpy(np.array(Image.fromarray(picture.numpy()).resize(size[::-1], how)))


def read_picture(file: Path, size: tuple[int, int]) -> torch.Tensor:
    """RGB pixels, uint8 (3, H, W), as stored, or turned where its EXIF entry and only that gives the size.

    Args:
        file: of the picture.
        size: H, W that its boxes are for.

    Raises:
        DataError: it cannot be read, or its EXIF entry turns it and its boxes would fit it both ways.
    """
    try:
        with Image.open(file) as picture:
            pixels = np.array(_as_annotated(file, picture, size).convert("RGB"))
    except DataError:
        raise
    except Exception as error:  # Pillow's plugins raise almost anything on damaged files
        raise DataError(f"{file}: cannot be read as a picture ({one_line(error)}); mend or remove it") from None
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def _as_annotated(file: Path, picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    orientation, stored = orientation_of(picture), (picture.height, picture.width)
    if orientation == 1 or (orientation > _UPRIGHT and stored == size != stored[::-1]):
        return picture
    if orientation > _UPRIGHT and stored[::-1] == size != stored:
        return ImageOps.exif_transpose(picture)
    raise DataError(
        f"{file}: is turned by its EXIF orientation {orientation}: whether its boxes fit it as stored or turned cannot "
        f"be told; turn its pixels, or take the entry away"
    )


def listed(names: Sequence[str], most: int = 10) -> str:
    """How many, and at most ten by name."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
