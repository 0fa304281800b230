"""Images and their masks on disk (``pair_layouts.py`` has the layouts), read and checked before training.

Images of one size are kept in memory as tensors; of several sizes, or to be cropped, as the bytes of their files
(``sized.py``).

A mask is a grey or palette picture whose pixels are classes, 255 for none; or instances, 0 for the background: then
every pixel above 0 is class 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from batchscale.data.examples import Examples, Splits, TensorExamples
from batchscale.data.masks.pair_headers import BROKEN, check_one_size, checked_headers
from batchscale.data.masks.pair_layouts import Pair, listed, pairs_below
from batchscale.data.masks.sized import SizedPairs
from batchscale.data.readings import MasksAre
from batchscale.data.threads import compute_alone
from batchscale.errors import DataError
from batchscale.structure import IGNORED
from batchscale.words import counted


@dataclass(frozen=True)
class PairPixels:
    """How the files of a pair are read.

    Args:
        channels: 1 or 3 of every image; transparency is left out.
        masks_are: what a mask's pixels are.
        num_classes: C.
    """

    channels: int
    masks_are: MasksAre
    num_classes: int

    def image(self, file: Path | BytesIO) -> torch.Tensor:
        """uint8 (C, H, W)."""
        array = np.array(_opened(file).convert("L" if self.channels == 1 else "RGB"))
        return torch.from_numpy(array[None] if array.ndim == 2 else array.transpose(2, 0, 1).copy())

    def mask(self, file: Path | BytesIO) -> torch.Tensor:
        """uint8 (H, W): classes, or IGNORED."""
        return self.classes(mask_values(file))

    def classes(self, values: npt.NDArray[np.int64]) -> torch.Tensor:
        """The same of a mask's values."""
        return torch.from_numpy((values > 0 if self.masks_are == "instances" else values).astype(np.uint8))

    def beyond(self, values: npt.NDArray[np.int64]) -> list[int]:
        """Values outside the classes."""
        outside = values[((values >= self.num_classes) & (values != IGNORED)) | (values < 0)]
        return [] if self.masks_are == "instances" else [int(value) for value in np.unique(outside)]


def mask_values(file: Path | BytesIO) -> npt.NDArray[np.int64]:
    """A mask's pixels as they are written, (H, W)."""
    return np.array(_opened(file)).astype(np.int64)


def read_pairs(
    name: str, folder: Path, masks_are: MasksAre, num_classes: int, crop: int | None = None, threads: int = 1
) -> Splits:
    """Images and masks below a folder.

    Args:
        name: of the data set, for errors.
        folder: that holds the layout's folders.
        masks_are: what a mask's pixels are.
        num_classes: C; with instances 2.
        crop: height and width of what is trained on of an image; None for all of it, then images have one size.
        threads: that decode.

    Raises:
        DataError: as ``pairs_below``; files that are no pictures, a mask of another size than its image (all of them,
            ten by name), images of several sizes without a crop, a value beyond C.
    """
    parts = pairs_below(name, folder)
    sizes, channels = checked_headers(name, [*parts.train, *parts.test], masks_are)
    if crop is None:
        check_one_size(name, [*parts.train, *parts.test], sizes)
    read = PairPixels(channels, masks_are, num_classes)
    train, test = (_examples(name, part, read, crop, threads) for part in (parts.train, parts.test))
    return Splits(name, train, test if crop is None else test.whole(), num_classes, parts.passed_over)


def _examples(name: str, part: Sequence[Pair], read: PairPixels, crop: int | None, threads: int) -> Examples:
    masks = _checked_masks(name, part, read, threads)
    if crop is None:
        images = (read.image(pair.image) for pair in part)
        return TensorExamples(_stacked(images, len(part)), _stacked(iter(masks), len(part)))
    sizes = np.array([mask.shape for mask in masks], dtype=np.int64)
    files = [(pair.image.read_bytes(), pair.mask.read_bytes()) for pair in part]
    for pair in part:
        read.image(pair.image)  # a damaged file is told now, not in the middle of a run
    return SizedPairs(files, sizes, read, (crop, crop), threads)


def _checked_masks(name: str, part: Sequence[Pair], read: PairPixels, threads: int) -> list[torch.Tensor]:
    """Every mask; those with values outside the classes are told together."""
    odd: dict[str, list[int]] = {}

    def checked(pair: Pair) -> torch.Tensor:
        values = mask_values(pair.mask)
        if beyond := read.beyond(values):
            odd[pair.mask.name] = beyond
        return read.classes(values)

    with ThreadPoolExecutor(threads, "batchscale-decode", compute_alone) as pool:
        masks = list(pool.map(checked, part))
    if odd:
        names = sorted(odd)  # threads end in any order
        values = ", ".join(map(str, odd[names[0]][:5]))
        raise DataError(
            f"data.name={name}: {counted(len(odd), 'mask')} with values outside the {read.num_classes} classes, "
            f"such as {names[0]} with {values}: must be 0 to {read.num_classes - 1}, or {IGNORED} for none; "
            f"mend {listed(names)}, or give data.classes=N"
        )
    return masks


def _stacked(pictures: Iterator[torch.Tensor], count: int) -> torch.Tensor:
    """One tensor of so many pictures of one size, without a second copy of all."""
    first = next(pictures)
    stacked = torch.empty((count, *first.shape), dtype=first.dtype)
    stacked[0] = first
    for number, picture in enumerate(pictures, 1):
        stacked[number] = picture
    return stacked


def _opened(file: Path | BytesIO) -> Image.Image:
    try:
        with Image.open(file) as picture:
            picture.load()
            return picture
    except BROKEN as error:
        raise DataError(f"{file}: cannot be read as a picture ({error}); mend or remove it") from None
