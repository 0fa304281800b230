"""The data sets that a recipe may name, where their official files are, and how they are checked.

A further data set is one more source and its line in ``members/``: an :class:`IdxSource` where its files are idx files,
a :class:`FolderSource` where they are image folders, else a class with ``load`` and ``fetch``.
"""

from __future__ import annotations

import importlib
import io
from collections.abc import MutableMapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from batchscale.data.examples import Splits
from batchscale.data.folders.folder_source import FolderSource
from batchscale.data.image.cifar import IMAGE_SHAPE, decode_batch, decode_meta
from batchscale.data.image.dataset import Dataset
from batchscale.data.image.digits import load_digits
from batchscale.data.image.idx import decode_idx
from batchscale.data.official.files import OfficialFile
from batchscale.data.source import Reading, Source
from batchscale.errors import DataError
from batchscale.members import DATASETS as MEMBERS
from batchscale.words import did_you_mean


def _torchvision(name: str, into: Path) -> None:
    getattr(importlib.import_module("torchvision.datasets"), name)(root=into, download=True)


@dataclass(frozen=True)
class DigitsSource(Source):
    """scikit-learn's handwritten digits: no files."""

    def load(self, folder: Path | None) -> Dataset:
        """The data set; the folder is not looked at."""
        return load_digits()

    def fetch(self, into: Path) -> Path:
        """Nothing to download."""
        return into


@dataclass(frozen=True)
class IdxSource(Source):
    """A set of four idx files: training images, training labels, test images, test labels.

    Args:
        torchvision_name: the class in torchvision.datasets that fetches it; the name of its folder, too.
    """

    torchvision_name: str = ""

    def load(self, folder: Path | None) -> Dataset:
        """The data set: images uint8 (N, 1, H, W)."""
        train_images, train_labels, test_images, test_labels = (
            decode_idx(io.BytesIO(file.read(path, owners())), str(path), file.shape)
            for path, file in zip(self.locate(folder), self.files, strict=True)
        )
        return Dataset(
            self.name,
            train_images.unsqueeze(1),
            train_labels.long(),
            test_images.unsqueeze(1),
            test_labels.long(),
            self.num_classes,
        )

    def fetch(self, into: Path) -> Path:
        """Download through torchvision."""
        _torchvision(self.torchvision_name, into)
        return into / self.torchvision_name / "raw"


@dataclass(frozen=True)
class CifarSource(Source):
    """CIFAR-10: five training files, one test file, then the class names.

    Args:
        images_per_file: images in each.
    """

    images_per_file: int = 10_000

    def load(self, folder: Path | None) -> Dataset:
        """The data set: images uint8 (N, 3, 32, 32)."""
        *batches, meta = list(zip(self.locate(folder), self.files, strict=True))
        decode_meta(meta[1].read(meta[0], owners()), str(meta[0]))
        n = self.images_per_file
        images = np.empty((n * len(batches), *IMAGE_SHAPE), dtype=np.uint8)
        labels = np.empty(n * len(batches), dtype=np.int64)
        for i, (path, file) in enumerate(batches):
            part = slice(i * n, (i + 1) * n)
            images[part], labels[part] = decode_batch(file.read(path, owners()), str(path), n)
        pixels, classes, train = torch.from_numpy(images), torch.from_numpy(labels), n * (len(batches) - 1)
        return Dataset(self.name, pixels[:train], classes[:train], pixels[train:], classes[train:], self.num_classes)

    def fetch(self, into: Path) -> Path:
        """Download through torchvision."""
        _torchvision("CIFAR10", into)
        return into / "cifar-10-batches-py"


@dataclass(frozen=True)
class Cifar100Source(Source):
    """CIFAR-100 with its 100 fine labels: a training file, a test file, the class names.

    Args:
        images: in the training and in the test file.
    """

    images: tuple[int, int] = (50_000, 10_000)

    def load(self, folder: Path | None) -> Dataset:
        """The data set: images uint8 (N, 3, 32, 32)."""
        *parts, (path, meta) = list(zip(self.locate(folder), self.files, strict=True))
        decode_meta(meta.read(path, owners()), str(path), "fine_label_names", self.num_classes)
        train, test = (
            decode_batch(file.read(path, owners()), str(path), images, "fine_labels", self.num_classes)
            for (path, file), images in zip(parts, self.images, strict=True)
        )
        pixels = [torch.from_numpy(images.copy()) for images, _ in (train, test)]
        return Dataset(
            self.name, pixels[0], torch.from_numpy(train[1]), pixels[1], torch.from_numpy(test[1]), self.num_classes
        )

    def fetch(self, into: Path) -> Path:
        """Download through torchvision."""
        _torchvision("CIFAR100", into)
        return into / "cifar-100-python"


_MNIST_SHAPES = {
    "train-images-idx3-ubyte.gz": (60_000, 28, 28),
    "train-labels-idx1-ubyte.gz": (60_000,),
    "t10k-images-idx3-ubyte.gz": (10_000, 28, 28),
    "t10k-labels-idx1-ubyte.gz": (10_000,),
}


def _mnist_files(
    md5s: tuple[str, ...], num_bytes: tuple[int, ...], unpacked_sha256s: tuple[str, ...]
) -> tuple[OfficialFile, ...]:
    rows = zip(_MNIST_SHAPES.items(), md5s, num_bytes, unpacked_sha256s, strict=True)
    return tuple(OfficialFile(name, md5, length, shape, sha256) for (name, shape), md5, length, sha256 in rows)


# MD5s: those that torchvision 0.29 holds, which are the published ones. Lengths and SHA256s: of the official files.
# mean, std: of the training images, sums taken in whole numbers, one rounding (mean) or two (std) at the end:
#   h = bincount(values); m = sum(v h) / N; s = sqrt(sum(v^2 h) / N - m^2), in fractions.Fraction.
_IMAGENET_MEAN = (123.675, 116.28, 103.53)  # 255 x those of fb.resnet.torch, as everyone's ImageNet networks have them
_IMAGENET_STD = (58.395, 57.12, 57.375)

DIGITS = DigitsSource("digits", 10, mean=(73.17132045929019,), std=(90.13425533266083,))
MNIST = IdxSource(
    name="mnist",
    num_classes=10,
    mean=(33.318421449829934,),
    std=(78.56748998339799,),
    files=_mnist_files(
        md5s=(
            "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "d53e105ee54ea40749a09fcbcd1e9432",
            "9fb629c4189551a2d022fa330f9573f3",
            "ec29112dd5afa0611ce80d1b7f02629c",
        ),
        num_bytes=(9912422, 28881, 1648877, 4542),
        unpacked_sha256s=(
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
    ),
    layouts=("mnist", "MNIST/raw", ".", "raw"),
    torchvision_name="MNIST",
)
FASHION_MNIST = IdxSource(
    name="fashion_mnist",
    num_classes=10,
    mean=(72.94035223214286,),
    std=(90.02118235130526,),
    files=_mnist_files(
        md5s=(
            "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "25c81989df183df01b3e8a0aad5dffbe",
            "bef4ecab320f06d8554ea6380940ec79",
            "bb300cfdad3c16e7a12a480ee83cd310",
        ),
        num_bytes=(26421880, 29515, 4422102, 5148),
        unpacked_sha256s=(
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ),
    ),
    layouts=("fashion_mnist", "FashionMNIST/raw", ".", "raw"),
    torchvision_name="FashionMNIST",
)
CIFAR10 = CifarSource(
    name="cifar10",
    num_classes=10,
    mean=(125.306918046875, 122.950394140625, 113.86538318359375),
    std=(62.99321927813691, 62.088707640014164, 66.70489964063096),
    files=(
        OfficialFile("data_batch_1", "c99cafc152244af753f735de768cd75f", 31035704),
        OfficialFile("data_batch_2", "d4bba439e000b95fd0a9bffe97cbabec", 31035320),
        OfficialFile("data_batch_3", "54ebc095f3ab1f0389bbae665268c751", 31035999),
        OfficialFile("data_batch_4", "634d18415352ddfa80567beed471001a", 31035696),
        OfficialFile("data_batch_5", "482c414d41f54cd18b22e5b47cb7c3cb", 31035623),
        OfficialFile("test_batch", "40351d587109b95175f43aff81a1287e", 31035526),
        OfficialFile("batches.meta", "5ff9c542aee3614f3951f8cda6e48888", 158),
    ),
    layouts=("cifar10", "cifar-10-batches-py", "cifar10/cifar-10-batches-py", "."),
)
CIFAR100 = Cifar100Source(  # MD5s as published; lengths, mean and deviation are not: the last two are taken at load
    name="cifar100",
    num_classes=100,
    mean=(),
    std=(),
    files=(
        OfficialFile("train", "16019d7e3df5f24257cddd939b257f8d"),
        OfficialFile("test", "f0ef6b0ae62326f3e7ffdfab6717acfc"),
        OfficialFile("meta", "7973b15100ade9c7d40fb424638fde48"),
    ),
    layouts=("cifar100", "cifar-100-python", "cifar100/cifar-100-python", "."),
)
IMAGENET = FolderSource(
    "imagenet",
    1000,
    _IMAGENET_MEAN,
    _IMAGENET_STD,
    roots=("imagenet", "ILSVRC2012", "ILSVRC/Data/CLS-LOC", "."),
)
FOLDER = FolderSource("folder", 0, _IMAGENET_MEAN, _IMAGENET_STD)

DATASETS: MutableMapping[str, Source] = MEMBERS
"""Every data set that a recipe may name."""


def owners() -> dict[str, str]:
    """Checksum -> data set. MNIST and Fashion-MNIST have files of the same names."""
    return {
        checksum: source.name
        for source in DATASETS.values()
        for file in source.files
        for checksum in (file.md5, file.unpacked_sha256)
    }


def source_of(name: str) -> Source:
    """The entry of DATASETS.

    Raises:
        DataError: no such data set; names the nearest one.
    """
    if name not in DATASETS:
        raise DataError(
            f"data.name={name!r}: no such data set; {did_you_mean(name, DATASETS)}known are {', '.join(DATASETS)}"
        )
    return DATASETS[name]


def load_dataset(name: str, folder: Path | None = None) -> Dataset:
    """A data set by name.

    Args:
        name: a member of DATASETS.
        folder: what --data names; None takes BATCHSCALE_DATA.

    Raises:
        DataError: unknown name; files missing or damaged.
    """
    return source_of(name).load(folder)


def open_dataset(name: str, folder: Path | None, reading: Reading) -> Splits:
    """A data set by name, as a run uses it: in memory, or on disk where it is large.

    Args:
        name: a member of DATASETS.
        folder: what --data names; None takes BATCHSCALE_DATA.
        reading: size and the like, for images on disk.

    Raises:
        DataError: unknown name; files missing or damaged.
    """
    with MEMBERS.building(name, "data.name", "this run"):
        return source_of(name).open(folder, reading)
