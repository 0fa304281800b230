"""Data sets in image folders, or in the packed form made of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from batchscale.data.augmentation import Indices
from batchscale.data.examples import Splits
from batchscale.data.folders.decoders import DecodingProcesses
from batchscale.data.folders.entries import Entries, FolderEntries
from batchscale.data.folders.folders import no_entries, read_test, read_train
from batchscale.data.folders.packed import PackedEntries, index_of
from batchscale.data.folders.stored import StoredImages
from batchscale.data.image.dataset import Dataset
from batchscale.data.official.faults import Tell, stop
from batchscale.data.readings import LabelsAre
from batchscale.data.source import Reading, Source, data_folder
from batchscale.data.text import lines_of, unquoted
from batchscale.errors import DataError
from batchscale.words import counted


def subset_of(entries: Entries, path: Path) -> Indices:
    """The entries that a list names, in file order.

    Args:
        entries: of the training part.
        path: one file name, or class/file, a line, as SimCLR's 1percent.txt and 10percent.txt.

    Raises:
        DataError: unreadable, empty, or it names files that are not there.
    """
    lines = {"/".join(unquoted(line.text).split("/")[-2:]): line for line in lines_of(path, f"data.subset={path}")}
    listed = lines.keys()
    entry_of: dict[str, int] = {}
    twice = None
    for entry in range(len(entries)):
        name = entries.name(entry).rsplit("/", 1)[-1]
        for named in {name, f"{entries.classes[entries.labels[entry]]}/{name}"} & listed:
            twice = named if named in entry_of else twice
            entry_of[named] = entry
    missing = [name for name in listed if name not in entry_of]
    if missing or twice or not listed:
        what = (
            f"{len(missing)} of {counted(len(listed), 'file')} not in the training part: {missing[0]}, "
            f"line {lines[missing[0]].number}"
            if missing
            else "empty"
        )
        what = f"{twice} is in more than one class; write class/file" if twice else what
        raise DataError(f"data.subset={path}: {what}: must name training files; give the list of this data set")
    return np.unique(np.fromiter(entry_of.values(), np.int64, len(entry_of)))


def _packed(index: Path, tell: Tell) -> Entries:
    """A packed part; one without an image where tell has taken that it cannot be opened."""
    try:
        return PackedEntries(index)
    except DataError as fault:
        tell(fault)
    return no_entries(index.parent)


@dataclass(frozen=True)
class FolderSource(Source):
    """A set of train/<class>/* and val/<class>/* (or a flat val), or its packed form; num_classes 0: any number.

    Args:
        roots: folders below --data that may hold train and val, looked at in this order.
    """

    lists_once = True

    roots: tuple[str, ...] = (".",)

    def root(self, folder: Path | None) -> Path:
        """The folder that holds train and val.

        Raises:
            DataError: none does.
        """
        data_root = data_folder(folder)
        for layout in self.roots if data_root else ():
            root = Path(data_root or "") / layout
            if index_of(root, "train").is_file() or (root / "train").is_dir():
                return root
        where = (
            ", ".join(str(data_root / layout) for layout in self.roots) if data_root else "no folder, as none is given"
        )
        raise DataError(
            f"data.name={self.name!r}: no folder with train/<class>/<image> or train.index found; searched {where}; "
            f"name it with --data DIR or BATCHSCALE_DATA=DIR"
        )

    def parts(self, folder: Path | None, tell: Tell = stop, labels: LabelsAre | None = None) -> tuple[Entries, Entries]:
        """The files of the training and the validation part.

        Args:
            folder: what --data names.
            tell: takes what is wrong, such as classes that differ or are not as many as they should be.
            labels: how to read the labels of the validation part; None where only one reading is possible.

        Raises:
            DataError: no folder holds the set.
        """
        root = self.root(folder)
        train: Entries
        test: Entries
        if index_of(root, "train").is_file():
            train, test = (_packed(index_of(root, part), tell) for part in ("train", "val"))
            if train.classes and test.classes and train.classes != test.classes:
                tell(DataError(f"{root}: train.index and val.index are of other classes; prepare both together"))
            if isinstance(test, PackedEntries):
                test.check_labels(labels, tell)
        else:
            train = read_train(root, tell)
            test = read_test(root, train.classes, data_folder(folder) or root, tell, labels)
        if self.num_classes and train.classes and len(train.classes) != self.num_classes:
            fault = (
                f"{root}: {counted(len(train.classes), 'class')}: {self.name} has {self.num_classes}; complete the "
                f"copy, or use data.name=folder for another set"
            )
            tell(DataError(fault))
        return train, test

    def open(self, folder: Path | None, reading: Reading) -> Splits:
        """The data set, its images on disk."""
        self.refuse(reading, "masks", "classes")
        train, test = reading.listing or self.parts(folder, labels=reading.labels)
        selected = subset_of(train, reading.subset) if reading.subset else None
        how, processes = (reading.size, reading.skip_bad, reading.threads), None
        if reading.decoders == "processes":
            processes = DecodingProcesses((train, test), reading.size, reading.threads)
        return Splits(
            self.name,
            StoredImages(train, *how, selected, processes),
            StoredImages(test, *how, None, processes),
            len(train.classes),
            "; ".join(f"{part}: {e.passed_over}" for part, e in (("train", train), ("val", test)) if e.passed_over),
            # The packed form's index is mapped: its pages are read once a host as it is.
            (train, test) if isinstance(train, FolderEntries) and isinstance(test, FolderEntries) else None,
        )

    def load(self, folder: Path | None) -> Dataset:
        """Not in memory."""
        raise DataError(f"data.name={self.name!r}: is read from disk, not loaded whole; use open_dataset")

    def fetch(self, into: Path) -> Path:
        """Nobody may hand it on."""
        raise DataError(f"data.name={self.name!r}: cannot be fetched; get it from its owners, and name its folder")
