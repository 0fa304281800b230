"""What a named data set is: where its files are looked for, and how they are read."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from batchscale.data.examples import Splits
from batchscale.data.image.dataset import Dataset
from batchscale.data.official.files import OfficialFile, existing, listing
from batchscale.data.readings import DecodersAre, LabelsAre, MasksAre, TokensAre
from batchscale.errors import DataError
from batchscale.words import counted


@dataclass(frozen=True)
class Reading:
    """How what lies on disk is read.

    Args:
        size: height and width of what the network gets.
        subset: a list of training files, one name a line; None for all.
        skip_bad: train on the next readable image in the place of a bad one; leave bad ones out of evaluation.
        threads: that decode.
        decoders: of image files: whether these threads decode, or a process for each.
        labels: how to read the labels of a validation part; None where only one reading is possible.
        masks: what the masks of pairs hold; None where that is known, or not said.
        classes: of such masks, the background included.
        resize: height and width that images with boxes are resized to; None: as they are.
        crop: height and width of what is trained on of pairs; None for all of an image.
        tokens: of a text.
        sequence: T, tokens of an example of a text.
        test_share: of a text in one part: the share that is evaluated.
        listing: ``Splits.listing`` of the same data set, as another process of this host has opened it: plain data,
            to be taken in the place of looking through folders; None where nobody has.
    """

    size: int = 224
    subset: Path | None = None
    skip_bad: bool = False
    threads: int = 1
    labels: LabelsAre | None = None
    masks: MasksAre | None = None
    classes: int | None = None
    tokens: TokensAre = "characters"
    sequence: int | None = None
    test_share: float = 0.1
    crop: int | None = None
    resize: tuple[int, int] | None = None
    decoders: DecodersAre = "threads"
    listing: Any = field(default=None, compare=False, repr=False)


_MEANT_FOR = {
    "masks": "data with masks",
    "classes": "masks that hold classes, or data of one's own",
}


def data_folder(folder: Path | None) -> Path | None:
    """The folder given with --data, else the one that BATCHSCALE_DATA names, else None."""
    if folder is not None:
        return Path(folder)
    named = os.environ.get("BATCHSCALE_DATA", "")
    return Path(named) if named else None


@dataclass(frozen=True)
class Source(ABC):
    """A data set that a recipe may name.

    Args:
        name: its name in recipes.
        num_classes: classes.
        mean: of the training pixels, one a channel, in units of 0..255.
        std: standard deviation of the same (over all pixels: divided by N H W, not N H W - 1).
        files: the official files; none where the set comes with a package.
        layouts: folders below --data where the files may lie, looked at in this order; the first is where
            ``batchscale data prepare`` puts them.

    Attributes:
        lists_once: ``open`` takes ``Reading.listing`` and gives ``Splits.listing``, so that one process of each host
            looks through the folders for all of them; else every process opens the set for itself.
    """

    lists_once: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        """An ``open`` of one's own says anew whether it lists once."""
        if "open" in vars(cls) and "lists_once" not in vars(cls):
            cls.lists_once = False

    name: str
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    files: tuple[OfficialFile, ...] = ()
    layouts: tuple[str, ...] = ()

    @abstractmethod
    def load(self, folder: Path | None) -> Dataset:
        """The data set, from files below --data folder (None: BATCHSCALE_DATA), every one checked; no download.

        Raises:
            DataError: files are missing, damaged or not the official ones.
        """

    def open(self, folder: Path | None, reading: Reading) -> Splits:
        """The data set as a run uses it.

        Raises:
            DataError: as ``load``, or entries that say how masks are read.
        """
        self.refuse(reading, "masks", "classes")
        return self.load(folder).splits()

    def refuse(self, reading: Reading, *entries: str) -> None:
        """Raise where an entry is set that says nothing of this set.

        Args:
            reading: as the recipe has it.
            entries: "masks", "classes".

        Raises:
            DataError: what the entry is for.
        """
        for entry in entries:
            if (value := getattr(reading, entry)) is not None:
                raise DataError(
                    f"data.{entry}={value}: is for {_MEANT_FOR[entry]}, which data.name={self.name} is not; leave it "
                    f"out"
                )

    @abstractmethod
    def fetch(self, into: Path) -> Path:
        """Download into an empty folder; returns the folder that then holds the official files."""

    @property
    def folder_name(self) -> str:
        """The folder below --data that is this set's own."""
        return self.layouts[0] if self.layouts else ""

    def find(self, folder: Path | None) -> list[Path | None]:
        """Where each official file (or its unpacked form) lies, None where it is missing.

        All are of one folder: the first that holds all, else the one that holds most.
        """
        root = data_folder(folder)
        best: list[Path | None] = [None] * len(self.files)
        for layout in self.layouts if root else ():
            candidate = [existing(Path(root or "") / layout, file) for file in self.files]
            if candidate.count(None) < best.count(None):
                best = candidate
        return best

    def locate(self, folder: Path | None) -> list[Path]:
        """Where each official file lies.

        Raises:
            DataError: files are missing; one line names each with its checksum, and the folders searched.
        """
        paths = self.find(folder)
        missing = [file for file, path in zip(self.files, paths, strict=True) if path is None]
        if missing:
            root = data_folder(folder)
            where = ", ".join(str(root / layout) for layout in self.layouts) if root else "no folder, as none is given"
            raise DataError(
                f"data.name={self.name!r}: {len(missing)} of {counted(len(self.files), 'file')} missing: "
                f"{listing(missing)}; searched {where}; run `batchscale data prepare {self.name} --data DIR`, "
                f"or name the folder that holds them with --data DIR or BATCHSCALE_DATA=DIR"
            )
        return [path for path in paths if path is not None]


@dataclass(frozen=True)
class ReadAsItLies(Source):
    """A data set that is no ``Dataset`` of images with one label each; nothing of it is fetched.

    Attributes:
        holds: what its examples have instead, and
        task: that learns it.
    """

    holds: ClassVar[str]
    task: ClassVar[str]

    @abstractmethod
    def open(self, folder: Path | None, reading: Reading) -> Splits:
        """The data set as a run uses it."""

    @abstractmethod
    def summary(self, folder: Path | None, reading: Reading) -> dict[str, Any]:
        """What is in it, for ``batchscale data check``."""

    def load(self, folder: Path | None) -> Dataset:
        """Nothing.

        Raises:
            DataError: always.
        """
        raise DataError(
            f"data.name={self.name!r}: {self.holds}: train it with task={self.task}, or read it by "
            f"batchscale.data.open_dataset"
        )

    def fetch(self, into: Path) -> Path:
        """Nothing to download."""
        return into
