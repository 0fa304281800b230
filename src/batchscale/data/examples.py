"""The seam between a run and its examples, wherever they lie: whole minibatches of inputs with their targets.

Two members: :class:`TensorExamples` in memory, and :class:`batchscale.data.folders.stored.StoredImages` on disk.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from batchscale.data.augmentation import Augmentation, Draw, Indices, draw, mirror
from batchscale.data.contents import COUNT, PARTS, Contents, digest
from batchscale.errors import DataError
from batchscale.structure import IGNORED, called, columns, mapped_columns, num_examples, rows, tensor_columns, tensors
from batchscale.structure import part as part_of

Pairs = tuple[Any, Any]
"""Inputs and targets of m examples, each of any structure: of classification pixels (m, C, H, W), labels int64 (m,)."""


class Examples(ABC):
    """The inputs and targets of one part of a data set: all that the feed, evaluation and the probe ask for.

    Attributes:
        shape: of one input as the network gets it: (C, H, W) of an image.
        raw: inputs are uint8 pixels, yet to be normalised.
        steps_ahead: steps that the feed makes ready in advance.
    """

    shape: tuple[int, ...]
    raw: bool
    steps_ahead = 1

    @abstractmethod
    def __len__(self) -> int:
        """N."""

    @abstractmethod
    def part(self, part: slice) -> Pairs:
        """Consecutive examples, nothing random; another in the place of one that cannot be read, as in training."""

    def readable(self, part: slice) -> Pairs:
        """Those of consecutive examples that can be read: what is evaluated."""
        return self.part(part)

    @abstractmethod
    def augmented(self, seed: int, augmentation: Augmentation) -> Callable[[Indices, Indices], Pairs]:
        """A function of (epochs, examples), int64 (m,) each, that makes the inputs and targets of a minibatch.

        Each example's augmentation hangs on (seed, epoch, example) alone, and acts on its input and its target alike.
        """

    @abstractmethod
    def select(self, examples: Indices) -> Examples:
        """These examples alone, in this order."""

    def whole(self) -> Examples:
        """The same examples as they are evaluated, where training cuts parts out of them."""
        return self

    @abstractmethod
    def digests(self) -> dict[str, str]:
        """What the examples are, in order, as far as is known without reading a file: property -> SHA256 or words."""

    def check_augmented(self, crops: bool) -> None:
        """Raise where mirrors, or padded crops, cannot be; by default nowhere."""
        return

    def give_up(self) -> None:
        """Let nobody wait for what is being read, as a run is broken off; by default there is an end to it."""
        return

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
        passed_over: what lies beside the examples and is none of them, in words.
        listing: what opening it has listed of the file system; see ``Reading.listing``.
        note: what a user should know of it, in words.
    """

    name: str
    train: Examples
    test: Examples
    num_classes: int
    passed_over: str = ""
    listing: Any = field(default=None, compare=False, repr=False)
    note: str = ""

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Of every input: (C, H, W) of an image (any shape where inputs are given as floats)."""
        return self.train.shape

    @cached_property
    def contents(self) -> Contents:
        """What is trained and evaluated on, as ``contents.py`` records and compares it."""
        contents: Contents = {"classes": self.num_classes}
        for part, examples in zip(PARTS, (self.train, self.test), strict=True):
            contents[f"{part} {COUNT}"] = len(examples)
            contents |= {f"{part} {name}": value for name, value in examples.digests().items()}
        return contents


class TensorExamples(Examples):
    """Examples in memory: a minibatch is one gather.

    A target picture, (N, ..., H, W) as its images are, is cropped and mirrored with them.

    Args:
        inputs: uint8 (N, C, H, W), floating (N, ...), or a structure of columns: tensors whose first axis is N, lists
            that have one member an example.
        targets: int64 (N,), or any structure alike.

    Attributes:
        picture: the uint8 images among the inputs; None where there are none.

    Raises:
        DataError: inputs and targets are not of equally many examples.
    """

    def __init__(self, inputs: Any, targets: Any) -> None:
        self.inputs, self.targets = inputs, targets
        bytes_ = (column for column in tensor_columns(inputs) if column.dtype == torch.uint8)
        self.picture = next((column for column in bytes_ if column.ndim == 4), None)
        first = next(columns(inputs)) if self.picture is None else self.picture
        self.shape = tuple(_first_member(first).shape if isinstance(first, list) else first.shape[1:])
        self.raw = self.picture is not None
        self._length = num_examples(inputs)
        for column in columns((inputs, targets)):
            if len(column) != self._length:
                raise DataError(
                    f"data: {self._length} examples by their first inputs, {len(column)} by others or targets: must be "
                    f"equally many; give several tensors as a tuple (a list holds one member an example)"
                )

    def __len__(self) -> int:
        return self._length

    def part(self, part: slice) -> Pairs:
        """Slices of the tensors."""
        return part_of(self.inputs, part), part_of(self.targets, part)

    def select(self, examples: Indices) -> TensorExamples:
        """Copies of these examples."""
        index = torch.from_numpy(examples)
        return TensorExamples(*mapped_columns(lambda column: rows(column, index), (self.inputs, self.targets)))

    def digests(self) -> dict[str, str]:
        """Of type, shape and bytes of the inputs, and of the targets."""
        kinds = (f"{tensor.dtype} {tuple(tensor.shape[1:])}" for tensor in tensor_columns(self.inputs))
        kind = " ".join(kinds).encode()  # as ever for one
        return {"pixels": digest([kind, *_blocks(self.inputs)]), "labels": digest(_blocks(self.targets))}

    def check_augmented(self, crops: bool) -> None:
        """Raise where mirrors, or crops over the border, would leave something behind its images.

        Raises:
            DataError: a list, whose members stay as they are; a mask without a number for what is outside of it.
        """
        masks = list(columns(self.targets))
        for column in columns((self.inputs, self.targets)):
            if isinstance(column, list) and any(True for _ in tensors(column)):
                raise DataError(
                    "data.augment: acts on tensors (N, ..., H, W), and the data holds a list of tensors, which would "
                    "stay as they are; leave data.augment out"
                )
            mask = any(column is each for each in masks)
            if (
                crops
                and mask
                and isinstance(column, torch.Tensor)
                and self._is_picture(column)
                and not _has_outside(column)
            ):
                raise DataError(
                    f"data.augment.crop=padded: reaches over the border of a mask, which holds {IGNORED} there, and "
                    f"{column.dtype} has no such number; give the mask as int64, or use data.augment.crop=none"
                )

    def augmented(self, seed: int, augmentation: Augmentation) -> Callable[[Indices, Indices], Pairs]:
        """One gather of every tensor, then mirrors, on whole tensors; pictures are cropped at one place together."""
        pick = self.picked(augmentation)
        return lambda epochs, examples: pick(draw(seed, augmentation, epochs, examples))

    def picked(self, augmentation: Augmentation) -> Callable[[Draw], Pairs]:
        """What ``augmented`` makes of drawn numbers, where these examples lie."""
        padding = augmentation.padding
        pick = (
            mapped_columns(lambda column: self._picker(column, padding, 0), self.inputs),  # an image is black outside
            mapped_columns(lambda column: self._picker(column, padding, IGNORED), self.targets),
        )

        def minibatch(drawn: Draw) -> Pairs:
            picked: Pairs = called(pick, drawn.examples, drawn.place)
            for flips in drawn.flips:
                for picture in filter(self._is_picture, tensor_columns(picked)):
                    mirror(picture, flips)
            return picked

        return minibatch

    def on(self, device: torch.device) -> TensorExamples:
        """Copies of these examples on a device; all their columns are tensors."""
        return TensorExamples(*mapped_columns(lambda column: column.to(device), (self.inputs, self.targets)))

    def num_bytes(self, padding: int) -> int:
        """Of the columns that are tensors, and of the padded copies that crops are cut out of."""
        total = 0
        for column in tensor_columns((self.inputs, self.targets)):
            total += column.nbytes
            if padding and self._is_picture(column):
                height, width = column.shape[-2:]
                total += column.nbytes * (height + 2 * padding) * (width + 2 * padding) // (height * width)
        return total

    def _is_picture(self, tensor: torch.Tensor) -> bool:
        """An image, or what lies over one: a mask of its height and width."""
        return tensor.ndim > 2 and tensor.shape[-2:] == self.shape[-2:]

    def _picker(
        self, column: torch.Tensor | list[Any], padding: int, outside: int
    ) -> Callable[[torch.Tensor, tuple[torch.Tensor, ...]], torch.Tensor | list[Any]]:
        """A function of (examples, their places) that gathers them, of a picture cut out at these places."""
        if not padding or isinstance(column, list) or not self._is_picture(column):
            return lambda index, place: rows(column, index)
        windows = _windows(column, padding, outside)
        return lambda index, place: windows[index, *place]


def _first_member(column: list[Any]) -> torch.Tensor:
    for tensor in tensors(column):
        return tensor
    raise DataError("data: inputs are a list without a tensor, such as of words: must be tensors; give their numbers")


def _has_outside(picture: torch.Tensor) -> bool:
    """Whether a mask's type has IGNORED, the number for what lies outside of it."""
    whole = not (picture.is_floating_point() or picture.dtype == torch.bool)
    return whole and torch.iinfo(picture.dtype).max >= IGNORED


def _blocks(structure: Any) -> Iterator[bytes | npt.NDArray[np.uint8]]:
    """The bytes of every column; of a list, whose members differ, their shapes too."""
    for column in columns(structure):
        for tensor in tensors(column):
            if isinstance(column, list):
                yield str(tuple(tensor.shape)).encode()
            yield _bytes(tensor)
        if isinstance(column, list):  # members that are no tensors: words, numbers
            yield repr([member for member in column if not any(True for _ in tensors(member))]).encode()


def _windows(pictures: torch.Tensor, padding: int, outside: int) -> torch.Tensor:
    """Every place of every picture's crop, (N, places, places, ..., H, W), without copies of it."""
    padded = torch.nn.functional.pad(pictures, [padding] * 4, value=outside)
    size = 2 * padding + 1
    first, *middle, y, x = padded.stride()
    shape = (len(pictures), size, size, *pictures.shape[1:])
    return padded.as_strided(shape, (first, y, x, *middle, y, x))


def _bytes(tensor: torch.Tensor) -> npt.NDArray[np.uint8]:
    """The bytes of a tensor in its logical (row-major) order."""
    plain: npt.NDArray[np.uint8] = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return plain
