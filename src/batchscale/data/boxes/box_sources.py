"""The data sets of detection that a recipe may name."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from batchscale.data.boxes.boxes import BoxedImages, Photograph
from batchscale.data.boxes.coco import read_coco
from batchscale.data.boxes.voc_boxes import CLASSES as VOC_CLASSES
from batchscale.data.boxes.voc_boxes import read_voc
from batchscale.data.examples import Splits
from batchscale.data.image.scenes import CLASSES, SCENES_MEAN, SCENES_STD, boxed_digits
from batchscale.data.source import ReadAsItLies, Reading, data_folder
from batchscale.errors import DataError

_JSONS = {
    "train": ("annotations/instances_train2017.json", "train.json", "train/_annotations.coco.json"),
    "val": (
        "annotations/instances_val2017.json",
        "annotations/instances_val2017_from_panoptic.json",
        "val.json",
        "valid/_annotations.coco.json",
    ),
}
_FOLDERS = {"train": ("train2017", "train", "images"), "val": ("val2017", "val", "valid", "images")}


@dataclass(frozen=True)
class BoxSource(ReadAsItLies):
    """Images with boxes: those of a folder stay on disk."""

    holds = "has boxes, not one label an image"
    task = "detection"

    @abstractmethod
    def photographs(self, folder: Path | None, reading: Reading) -> tuple[list[Photograph], list[Photograph], int, str]:
        """(training part, test part, classes with the background, what was passed over in words)."""

    def open(self, folder: Path | None, reading: Reading) -> Splits:
        """The photographs, decoded as they are used.

        Raises:
            DataError: no folder, or what is wrong in it; a part without a box.
        """
        self.refuse(reading, "classes")
        if reading.masks == "classes":
            raise DataError(
                f"data.masks=classes: the masks of data.name={self.name} are of instances; use data.masks=instances"
            )
        train, test, classes, passed = self.photographs(folder, reading)
        for part, photographs in (("training", train), ("test", test)):
            if not sum(len(photograph.labels) for photograph in photographs):
                raise DataError(f"data.name={self.name}: its {part} part has no box to learn from or to find; add some")
        parts = [BoxedImages(photographs, reading.resize, reading.threads) for photographs in (train, test)]
        return Splits(self.name, parts[0], parts[1], classes, passed)

    def summary(self, folder: Path | None, reading: Reading) -> dict[str, Any]:
        """What is in it: numbers of images and of each class's boxes; every image is decoded once.

        Raises:
            DataError: as ``open``, or an image that cannot be read.
        """
        splits = self.open(folder, reading)
        boxes = {}
        for part, examples in (("train", splits.train), ("test", splits.test)):
            assert isinstance(examples, BoxedImages)
            for number in range(len(examples)):
                examples.part(slice(number, number + 1))
            labels = torch.cat([photograph.labels for photograph in examples.photographs])
            boxes[f"{part}_boxes_per_class"] = torch.bincount(labels, minlength=splits.num_classes).tolist()
        notes = [f"passed over: {splits.passed_over}"] if splits.passed_over else []
        return {
            "name": self.name,
            "faults": [],
            "notes": notes,
            "image_shape": list(splits.image_shape),
            "train_images": len(splits.train),
            "test_images": len(splits.test),
            **boxes,
        }

    def _folder(self, folder: Path | None, holds: Sequence[str]) -> Path:
        """The first of the layouts that holds one of these.

        Raises:
            DataError: none does; names all.
        """
        root = data_folder(folder)
        if root is None:
            raise DataError(
                f"data.name={self.name}: no folder is named; give it with --data DIR or BATCHSCALE_DATA=DIR"
            )
        candidates = [root / layout for layout in self.layouts]
        for candidate in candidates:
            if any((candidate / name).exists() for name in holds):
                return candidate
        raise DataError(
            f"data.name={self.name}: no {' or '.join(holds)} in {', '.join(map(str, candidates))}; name the folder "
            f"that holds them with --data DIR or BATCHSCALE_DATA=DIR"
        )


@dataclass(frozen=True)
class DigitBoxes(BoxSource):
    """Scenes of scikit-learn's digits: no files."""

    def photographs(self, folder: Path | None, reading: Reading) -> tuple[list[Photograph], list[Photograph], int, str]:
        """The scenes; the folder is not looked at."""
        return *boxed_digits(with_masks=reading.masks == "instances"), CLASSES, ""


@dataclass(frozen=True)
class CocoSource(BoxSource):
    """COCO's layout: jsons in annotations/, images in train2017/ and val2017/; or train.json and val.json."""

    def photographs(self, folder: Path | None, reading: Reading) -> tuple[list[Photograph], list[Photograph], int, str]:
        """Both parts; each has its own json."""
        root = self._folder(folder, _JSONS["train"])
        train, train_classes, train_passed = self._part(root, "train", reading)
        test, test_classes, test_passed = self._part(root, "val", reading)
        told = (f"{part}: {passed}" for part, passed in (("train", train_passed), ("val", test_passed)) if passed)
        return train, test, max(train_classes, test_classes), "; ".join(told)

    def _part(self, root: Path, part: str, reading: Reading) -> tuple[list[Photograph], int, str]:
        table = next((root / name for name in _JSONS[part] if (root / name).is_file()), None)
        if table is None:
            raise DataError(f"data.name={self.name}: no {' or '.join(_JSONS[part])} in {root}; add one")
        if table.name == "_annotations.coco.json":
            images = table.parent
        else:
            images = next((root / name for name in _FOLDERS[part] if (root / name).is_dir()), root)
        return read_coco(table, images, reading.masks == "instances")


@dataclass(frozen=True)
class VocSource(BoxSource):
    """Pascal-VOC's layout.

    Args:
        classes: names; labels count from 1.
        parts: of ImageSets/Main that are trained and evaluated on.
    """

    classes: tuple[str, ...] = ()
    parts: tuple[str, str] = ("trainval", "test")

    def photographs(self, folder: Path | None, reading: Reading) -> tuple[list[Photograph], list[Photograph], int, str]:
        """Both parts."""
        if reading.masks is not None:
            raise DataError(f"data.masks={reading.masks}: data.name={self.name} has boxes without masks; leave it out")
        root = self._folder(folder, ["Annotations"])
        (train, train_passed), (test, test_passed) = (read_voc(root, part, self.classes) for part in self.parts)
        told = (
            f"{part}: {passed}" for part, passed in zip(self.parts, (train_passed, test_passed), strict=True) if passed
        )
        return train, test, len(self.classes) + 1, "; ".join(told)


_IMAGENET_MEAN, _IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # as torchvision's detectors

COCO = CocoSource("coco", 91, _IMAGENET_MEAN, _IMAGENET_STD, layouts=("coco", "."))
VOC_DETECTION = VocSource(
    "voc_detection", 21, _IMAGENET_MEAN, _IMAGENET_STD, layouts=("VOCdevkit/VOC2007", "VOC2007", "voc", "."),
    classes=VOC_CLASSES,
)  # fmt: skip
BCCD = VocSource(
    "bccd", 4, _IMAGENET_MEAN, _IMAGENET_STD, layouts=("bccd", "BCCD", "."), classes=("RBC", "WBC", "Platelets")
)
DIGITS_SCENES_DETECTION = DigitBoxes("digits_scenes_detection", CLASSES, SCENES_MEAN, SCENES_STD)
