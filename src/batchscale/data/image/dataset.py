"""What a data set is here: images and labels, in memory, the training and the test part."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from batchscale.data.examples import Splits, TensorExamples
from batchscale.errors import DataError


@dataclass(frozen=True)
class Dataset:
    """A small data set, whole in memory.

    Args:
        name: its name in recipes.
        train_images: uint8 (N, C, H, W), normalised by the feed; or floating (N, ...), used as they are.
        train_labels: int64 (N,), each in [0, num_classes).
        test_images: (M, ...), as the training images.
        test_labels: int64 (M,).
        num_classes: classes, whether or not each occurs.

    Raises:
        DataError: shapes, types or label range are wrong.

    Examples:
        >>> images, labels = torch.randn(100, 20), torch.arange(100) % 2
        >>> data = batchscale.Dataset("mine", images[:80], labels[:80], images[80:], labels[80:], num_classes=2)
        >>> data.image_shape
        (20,)
    """

    name: str
    train_images: torch.Tensor
    train_labels: torch.Tensor
    test_images: torch.Tensor
    test_labels: torch.Tensor
    num_classes: int

    def __post_init__(self) -> None:
        for part in ("train", "test"):
            images, labels = getattr(self, f"{part}_images"), getattr(self, f"{part}_labels")
            raw = images.dtype == torch.uint8 and images.ndim == 4
            if not (raw or (images.is_floating_point() and images.ndim >= 2)) or len(images) == 0:
                raise DataError(
                    f"data {self.name}: {part} images are {images.dtype} {tuple(images.shape)}: must be uint8 (images, "
                    f"channels, height, width), or floating (images, ...), at least one; convert them first"
                )
            if labels.dtype != torch.int64 or labels.shape != (len(images),):
                raise DataError(
                    f"data {self.name}: {part} labels are {labels.dtype} {tuple(labels.shape)}: "
                    f"must be int64 ({len(images)},), one for each image"
                )
            low, high = int(labels.min()), int(labels.max())
            if low < 0 or high >= self.num_classes:
                raise DataError(
                    f"data {self.name}: {part} labels run from {low} to {high}: "
                    f"must lie in 0..{self.num_classes - 1}; the file is damaged or of another data set"
                )

        if self.train_images.shape[1:] != self.test_images.shape[1:]:
            raise DataError(
                f"data {self.name}: training images are {tuple(self.train_images.shape[1:])}, test images "
                f"{tuple(self.test_images.shape[1:])}: must have one shape"
            )

    def splits(self) -> Splits:
        """The two parts, as a run uses them."""
        train = TensorExamples(self.train_images, self.train_labels)
        return Splits(self.name, train, TensorExamples(self.test_images, self.test_labels), self.num_classes)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(C, H, W) of every image (any shape where images are given as floats)."""
        return tuple(self.train_images.shape[1:])
