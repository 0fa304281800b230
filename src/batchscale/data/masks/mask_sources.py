"""The data sets of segmentation that a recipe may name."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from batchscale.data.examples import Splits, TensorExamples
from batchscale.data.image.scenes import CLASSES, SCENES_MEAN, SCENES_STD, segmented_digits
from batchscale.data.masks.pair_layouts import layouts_below
from batchscale.data.masks.pairs import read_pairs
from batchscale.data.masks.sized import SizedPairs
from batchscale.data.masks.weather import CLASSES as WEATHER_CLASSES
from batchscale.data.masks.weather import made_up_weather
from batchscale.data.readings import MasksAre
from batchscale.data.source import ReadAsItLies, Reading, data_folder
from batchscale.errors import DataError
from batchscale.structure import IGNORED


@dataclass(frozen=True)
class MaskSource(ReadAsItLies):
    """Images with a mask each, in memory."""

    holds = "has masks, not one label an image"
    task = "segmentation"

    @abstractmethod
    def open(self, folder: Path | None, reading: Reading) -> Splits:
        """Images uint8 (N, C, H, W), masks (N, H, W)."""

    def _check_known(self, reading: Reading, masks_are: MasksAre = "classes") -> None:
        """Raise where a recipe says otherwise what the masks of a set that is known hold.

        Raises:
            DataError: instances for classes, or the reverse; another number of classes.
        """
        if reading.masks not in (None, masks_are):
            raise DataError(
                f"data.masks={reading.masks}: the masks of data.name={self.name} hold {masks_are}; leave it out"
            )
        if reading.classes not in (None, self.num_classes):
            raise DataError(
                f"data.classes={reading.classes}: data.name={self.name} has {self.num_classes}; leave it out"
            )

    def summary(self, folder: Path | None, reading: Reading) -> dict[str, Any]:
        """What is in it: numbers of images, their shape, the share of every class in the training pixels, in percent.

        Raises:
            DataError: as ``open``.
        """
        splits = self.open(folder, reading)
        if isinstance(splits.train, SizedPairs):
            pixels = splits.train.mask_pixels()
        else:
            assert isinstance(splits.train, TensorExamples)
            pixels = torch.bincount(splits.train.targets.flatten(), minlength=IGNORED + 1)
        shares = (100 * pixels / pixels.sum()).tolist()
        return {
            "name": self.name,
            "faults": [],
            "image_shape": list(splits.image_shape),
            "train_images": len(splits.train),
            "test_images": len(splits.test),
            "train_percent_per_class": [round(share, 4) for share in shares[: splits.num_classes]],
            "train_percent_ignored": round(shares[IGNORED], 4),
        }


@dataclass(frozen=True)
class ScenesSource(MaskSource):
    """Scenes of scikit-learn's digits: no files."""

    def open(self, folder: Path | None, reading: Reading) -> Splits:
        """The scenes; the folder is not looked at."""
        self._check_known(reading)
        return segmented_digits()


@dataclass(frozen=True)
class WeatherSource(MaskSource):
    """Made-up climate fields: no files."""

    def open(self, folder: Path | None, reading: Reading) -> Splits:
        """The fields; the folder is not looked at."""
        self._check_known(reading)
        return made_up_weather()


@dataclass(frozen=True)
class PairsSource(MaskSource):
    """Pairs on disk (``pairs.py`` has the layouts).

    Args:
        masks_are: what the masks hold; None: the recipe says it.
    """

    masks_are: MasksAre | None = None

    def open(self, folder: Path | None, reading: Reading) -> Splits:
        """The pairs.

        Raises:
            DataError: no folder, or the recipe does not say what the masks hold; as ``read_pairs``.
        """
        masks_are, classes = self._reading(reading)
        root = data_folder(folder)
        if root is None:
            raise DataError(
                f"data.name={self.name}: no folder is named; give it with --data DIR or BATCHSCALE_DATA=DIR"
            )
        candidates = [root / layout for layout in self.layouts]
        holding = next((path for path in candidates if (path / "images").is_dir() or layouts_below(path)), None)
        if holding is None:
            raise DataError(
                f"data.name={self.name}: no images/ or train/ in {', '.join(map(str, candidates))}, nor "
                f"ImageSets/Segmentation/; name the folder that holds them with --data DIR or "
                f"BATCHSCALE_DATA=DIR"
            )
        return read_pairs(self.name, holding, masks_are, classes, reading.crop, reading.threads)

    def _reading(self, reading: Reading) -> tuple[MasksAre, int]:
        if self.masks_are is not None:
            self._check_known(reading, self.masks_are)
            return self.masks_are, self.num_classes
        if reading.masks is None:
            raise DataError(
                f"data.name={self.name}: what the masks hold cannot be told from them; give data.masks=instances (0 "
                f"the background, all else class 1), or data.masks=classes with data.classes=N"
            )
        if reading.masks == "instances" and reading.classes not in (None, 2):
            raise DataError(
                f"data.classes={reading.classes}: instances are two classes, the background and the foreground; leave "
                f"it out, or give data.masks=classes"
            )
        if reading.masks == "classes" and not 2 <= (reading.classes or 0) <= IGNORED:
            raise DataError(
                f"data.classes={reading.classes}: with data.masks=classes, must say how many there are, the background "
                f"included, from 2 to {IGNORED} ({IGNORED} in a mask is none); give data.classes=N"
            )
        return reading.masks, 2 if reading.masks == "instances" else reading.classes or 2


DIGITS_SCENES = ScenesSource("digits_scenes", CLASSES, SCENES_MEAN, SCENES_STD)
DEEPCAM_MADE_UP = WeatherSource(
    "deepcam_made_up",
    WEATHER_CLASSES,
    mean=(
        130.9567, 132.3833, 123.6504, 124.6007, 125.3337, 130.115, 129.009, 129.5421, 127.7889, 125.7699,
        127.0537, 127.5763, 127.3674, 126.6632, 126.9599, 125.7094,
    ),
    std=(
        52.8359, 52.2939, 51.3387, 51.8052, 51.2326, 51.1663, 51.1511, 51.5676, 49.8089, 49.2885, 49.7752,
        49.4252, 49.5107, 49.1516, 49.6909, 49.4238,
    ),
)  # fmt: skip
NUCLEI = PairsSource(
    name="nuclei",
    num_classes=2,
    mean=(12.053099447221898,),
    std=(16.967925860919344,),  # of the training images, to one rounding
    layouts=("nuclei_dsb2018", "nuclei", "."),
    masks_are="instances",
)
PAIRS = PairsSource("pairs", 0, mean=(), std=(), layouts=("pairs", "."))
# Mean and deviation of ImageNet's photographs, in torchvision's numbers: what weights from a file were trained with.
VOC_SEGMENTATION = PairsSource(
    name="voc_segmentation",
    num_classes=21,
    mean=(123.675, 116.28, 103.53),
    std=(58.395, 57.12, 57.375),
    layouts=("VOCdevkit/VOC2012", "VOC2012", "."),
    masks_are="classes",
)
