"""Boxes as annotations give them -> boxes that a detector can learn: what is wrong, passed over, or clipped.

A box of no width or height is passed over and counted, and so is one thinner than 1/64 of a pixel: float32, in which
boxes are mirrored and resized, could leave it none. One that reaches over the border by a pixel at most, as rounded
ones do, is clipped and counted; by more it is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from batchscale.data.boxes.boxes import listed
from batchscale.data.passed_over import PassedOver
from batchscale.errors import DataError
from batchscale.words import counted

_ROUNDING = 1.0  # pixels
_THINNEST = 1 / 64  # pixels: float32 tells it apart up to 131,072


@dataclass(frozen=True)
class AnnotatedBox:
    """x1, y1, x2, y2 in pixels; label from 1; segmentation: in COCO's form, None where there is none."""

    corners: tuple[float, float, float, float]
    label: int
    crowd: bool = False
    segmentation: object = None


@dataclass
class BoxChecks:
    """What the boxes of one part have in common.

    Args:
        where: they come from, for errors.

    Attributes:
        passed: what is passed over, clipped, or a crowd.
        outside: images with a box beyond the border.
    """

    where: str
    passed: PassedOver = field(default_factory=PassedOver)
    outside: list[str] = field(default_factory=list)

    def kept(self, name: str, size: tuple[int, int], boxes: Sequence[AnnotatedBox]) -> list[AnnotatedBox]:
        """The boxes of one image that can be learned, clipped to it."""
        height, width = size
        kept = []
        for box in boxes:
            x1, y1, x2, y2 = box.corners
            if not (x2 > x1 and y2 > y1):
                self.passed.add("object", "of zero size", name)
                continue
            if max(-x1, -y1, x2 - width, y2 - height) > _ROUNDING:
                self.outside.append(name)
                continue
            clipped = max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height))
            if clipped != box.corners:
                self.passed.add("object", "clipped by a pixel at most", name)
            if not (clipped[2] > clipped[0] and clipped[3] > clipped[1]):
                self.passed.add("object", "of zero size", name)
                continue
            if min(clipped[2] - clipped[0], clipped[3] - clipped[1]) < _THINNEST:
                self.passed.add("object", "thinner than 1/64 of a pixel", name)
                continue
            if box.crowd:
                self.passed.add("object", "of a crowd or difficult (neither learned nor an error)", name)
            kept.append(AnnotatedBox(clipped, box.label, box.crowd, box.segmentation))
        return kept

    def finish(self) -> None:
        """Raise where boxes lie outside.

        Raises:
            DataError: how many, the images of ten.
        """
        if self.outside:
            raise DataError(
                f"{self.where}: {counted(len(self.outside), 'object')} with a box that reaches over the border by more "
                f"than a pixel, of {listed(self.outside)}: must lie inside the image; mend them"
            )


def tensors_of(boxes: Sequence[AnnotatedBox]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Boxes float32 (b, 4), labels int64 (b,), crowd bool (b,)."""
    return (
        torch.tensor([box.corners for box in boxes], dtype=torch.float32).view(-1, 4),
        torch.tensor([box.label for box in boxes], dtype=torch.int64),
        torch.tensor([box.crowd for box in boxes], dtype=torch.bool),
    )
