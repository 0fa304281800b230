"""Images with several labels: which kinds of objects are on them, as a data set of boxes has it.

An image's vector holds 1 for a kind that is on it, 255 for one of which all objects are difficult or crowds (VOC's own
lists of images, ``ImageSets/Main/CLASS_PART.txt``, have 0 for these, and -1 and 1), else 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from batchscale.data.boxes.box_sources import BCCD, DIGITS_SCENES_DETECTION, VOC_DETECTION, BoxSource
from batchscale.data.boxes.boxes import BoxedImages, Photograph
from batchscale.data.examples import Splits, TensorExamples
from batchscale.data.source import ReadAsItLies, Reading
from batchscale.errors import DataError

_UNSAID = 255


@dataclass(frozen=True)
class KindsSource(ReadAsItLies):
    """The kinds of objects of a data set of boxes; images in memory, of one size.

    Args:
        boxes: that data set; its class 1 is class 0 here, as there is no background.
    """

    holds = "has several labels an image"
    task = "multilabel"

    boxes: BoxSource | None = None

    def open(self, folder: Path | None, reading: Reading) -> Splits:
        """Images uint8 (N, C, H, W), vectors uint8 (N, classes).

        Raises:
            DataError: as of the boxes, or images of several sizes.
        """
        assert self.boxes is not None
        self.refuse(reading, "masks", "classes")
        train, test, classes, passed = self.boxes.photographs(folder, reading)
        parts = [self._part(photographs, classes - 1, reading) for photographs in (train, test)]
        return Splits(self.name, parts[0], parts[1], classes - 1, passed)

    def _part(self, photographs: Sequence[Photograph], classes: int, reading: Reading) -> TensorExamples:
        sizes = {reading.resize or photograph.size for photograph in photographs}
        if len(sizes) > 1:
            raise DataError(
                f"data.name={self.name}: its images have {len(sizes)} sizes: must have one in memory; give "
                f"data.resize=[H, W], for example data.resize=[224, 224]"
            )
        images, _ = BoxedImages(photographs, reading.resize, reading.threads).part(slice(0, len(photographs)))
        return TensorExamples(torch.stack(images), torch.stack([_kinds(each, classes) for each in photographs]))

    def summary(self, folder: Path | None, reading: Reading) -> dict[str, Any]:
        """What is in it: numbers of images, their shape, the share of the training images with each label, in percent.

        Raises:
            DataError: as ``open``.
        """
        splits = self.open(folder, reading)
        assert isinstance(splits.train, TensorExamples)
        shares = (100 * (splits.train.targets == 1).double().mean(0)).tolist()
        return {
            "name": self.name,
            "faults": [],
            "image_shape": list(splits.image_shape),
            "train_images": len(splits.train),
            "test_images": len(splits.test),
            "train_percent_with_label": [round(share, 4) for share in shares],
        }


def _kinds(photograph: Photograph, classes: int) -> torch.Tensor:
    kinds = torch.zeros(classes, dtype=torch.uint8)
    kinds[photograph.labels - 1] = _UNSAID
    kinds[photograph.labels[~photograph.crowd] - 1] = 1
    return kinds


def _source(name: str, boxes: BoxSource) -> KindsSource:
    return KindsSource(name, boxes.num_classes - 1, boxes.mean, boxes.std, layouts=boxes.layouts, boxes=boxes)


VOC_LABELS = _source("voc_labels", VOC_DETECTION)
BCCD_LABELS = _source("bccd_labels", BCCD)
DIGITS_SCENES_LABELS = _source("digits_scenes_labels", DIGITS_SCENES_DETECTION)
