"""Image folders as users have them: train/<class>/*, val/<class>/*, a flat validation folder, ImageNet-V2.

Classes are numbered in the order of their folders' names; where the names are the numbers 0..C-1, by number.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from batchscale.data.folders.entries import FolderEntries, Names
from batchscale.data.folders.val_labels import Flat, ListedLabels, labels_of, lists_in
from batchscale.data.official.faults import Tell, stop
from batchscale.data.passed_over import PassedOver
from batchscale.data.readings import CHOICE, LabelsAre, numbers_of, two_orders, two_ways
from batchscale.errors import DataError
from batchscale.words import counted

TEST_FOLDERS = ("val", "validation", "valid", "test")
OTHER_KIND = ("file", "of another kind")
_EXTENSIONS = (b".jpeg", b".jpg", b".png", b".bmp", b".ppm", b".pgm", b".tif", b".tiff", b".webp")


def _shown(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f", ... ({len(names)})" if len(names) > 3 else "")


@dataclass(frozen=True)
class _Walk:
    """Looking through one part.

    Args:
        root: of the part.
        tell: takes folders that cannot be read, and links that lead nowhere or back.
        passed: told of all that is no image in a class.
    """

    root: Path
    tell: Tell
    passed: PassedOver = field(default_factory=PassedOver)

    def _pass(self, noun: str, which: str, path: bytes) -> None:
        self.passed.add(noun, which, os.path.relpath(os.fsdecode(path), self.root))

    def listed(self, folder: bytes) -> list[os.DirEntry[bytes]]:
        """What is in a folder, sorted; what is hidden is passed over."""
        try:
            with os.scandir(folder) as entries:  # by bytes: names need not be text
                # Sorted: a file system's own order differs from copy to copy, and the order is part of the data.
                everything = sorted(entries, key=lambda e: e.name)
        except OSError as error:
            reason = error.strerror or error
            self.tell(
                DataError(
                    f"{os.fsdecode(folder)}: cannot be read ({reason}): must be a readable folder; "
                    f"change its permissions"
                )
            )
            return []
        for entry in everything:
            if entry.name.startswith(b"."):
                self._pass("hidden file", "", entry.path)
        return [entry for entry in everything if not entry.name.startswith(b".")]

    def is_folder(self, entry: os.DirEntry[bytes]) -> bool:
        """Whether it is one, or a link to one."""
        try:
            return entry.is_dir()  # follows links, and mostly asks nothing of the disk
        except OSError as error:
            reason = error.strerror or error
        self.tell(
            DataError(
                f"{os.fsdecode(entry.path)}: cannot be followed ({reason}): must be an image, a folder or a link to "
                f"one; remove it"
            )
        )
        return False

    def _files(self, folder: bytes, below: bytes = b"", above: tuple[os.stat_result, ...] = ()) -> Iterator[bytes]:
        """Files of a folder and all below it, relative to it, sorted; ``above`` are the folders that it lies in."""
        entries, status = self.listed(folder), os.stat(folder)
        if any(os.path.samestat(status, ancestor) for ancestor in above):  # by inode: a link's path is a new one
            self.tell(
                DataError(f"{os.fsdecode(folder)}: a link leads back to a folder above it: must not; remove the link")
            )
            return
        for entry in entries:
            if self.is_folder(entry):
                yield from self._files(entry.path, below + entry.name + b"/", (*above, status))
            else:
                yield below + entry.name

    def images(self, folder: str) -> list[bytes]:
        """Image files, by their extension, below a folder of the part; others are passed over."""
        images, top = [], os.path.join(os.fsencode(self.root), os.fsencode(folder))
        for name in self._files(top):
            if name.lower().endswith(_EXTENSIONS):
                images.append(name)
            else:
                self._pass(*OTHER_KIND, os.path.join(top, name))
        return images

    def class_folders(self) -> list[str]:
        """Names of the class folders, in the order of the labels; files beside them are passed over."""
        names, beside = [], []
        for entry in self.listed(os.fsencode(self.root)):
            if self.is_folder(entry):
                names.append(os.fsdecode(entry.name))
            else:
                beside.append(entry)
        for entry in beside if names else []:  # a flat folder has no others
            is_image = entry.name.lower().endswith(_EXTENSIONS)
            self._pass("image" if is_image else "file", "beside the class folders", entry.path)
        return sorted(names, key=int) if set(names) == numbers_of(names).keys() else names


def no_entries(part: Path, classes: tuple[str, ...] = ()) -> FolderEntries:
    """A part that is not there."""
    return _read_classes(_Walk(part, stop), [], classes)


def _read_classes(walk: _Walk, folders: list[str], classes: tuple[str, ...]) -> FolderEntries:
    """The files of class folders; a class without an image is told of.

    Args:
        walk: through the part.
        folders: below it, in the order of the labels.
        classes: names, in the same order.
    """
    part, blocks, lengths, counts, empty = walk.root, [], [], [], []
    for folder in folders:
        images = walk.images(folder)
        if not images:
            empty.append(folder)
        blocks.append(b"".join(images))
        lengths.append(np.array([len(name) for name in images], np.int64))
        counts.append(len(images))
    if empty:
        walk.tell(
            DataError(
                f"{part}: {len(empty)} of {counted(len(folders), 'class folder')} without an image: {_shown(empty)}; "
                f"fill them, or take them away from training and validation alike"
            )
        )
    labels = np.repeat(np.arange(len(folders)), np.array(counts, np.int64))
    return FolderEntries(part, Names.of(blocks, lengths), labels, classes, tuple(folders), walk.passed)


def read_train(root: Path, tell: Tell = stop) -> FolderEntries:
    """root/train/<class>/*; tell takes what is wrong with it, such as no class folders."""
    walk = _Walk(root / "train", tell)
    folders = walk.class_folders()
    if not folders:
        tell(DataError(f"{walk.root}: holds no class folders: must be train/<class>/<image>; make one folder a class"))
    return _read_classes(walk, folders, tuple(folders))


def _as_trained(walk: _Walk, folders: list[str], classes: tuple[str, ...], labels: LabelsAre | None) -> list[str]:
    """The validation folders in the order of the training classes; as they are where they are others."""
    part, numbers = walk.root, numbers_of(classes)
    if set(folders) == set(classes) and (labels != "numbers" or set(folders) == numbers.keys()):
        return list(classes)
    if set(folders) == numbers.keys() and labels != "names":  # ImageNet-V2: folders named by the label
        example = two_ways(folders, classes)
        if example and labels is None:
            walk.tell(
                DataError(
                    f"{part}: its class folders can be read in two ways: {example}; {CHOICE}, and complete the copy "
                    f"where they are names"
                )
            )
        if not example and labels is None and (example := two_orders(folders, classes)):
            walk.tell(DataError(f"{part}: its class folders can be read in two ways: {example}"))
        return sorted(folders, key=int)  # as text 10 would come before 2
    expected = numbers.keys() if labels == "numbers" else set(classes)
    lacking, more = sorted(expected - set(folders)), sorted(set(folders) - expected)
    differences = [f"{part.name} lacks {_shown(lacking)}"] * bool(lacking) + [f"train lacks {_shown(more)}"] * bool(
        more
    )
    if classes:  # else it was told that there are none
        what = "the same, by data.labels=numbers as labels from 0" if labels == "numbers" else "the same"
        walk.tell(
            DataError(
                f"{part.parent}: class folders of train ({len(classes)}) and {part.name} ({len(folders)}) differ: "
                f"{'; '.join(differences)}: must be {what}; complete the copy, or remove what is too much"
            )
        )
    return []


def read_test(
    root: Path, classes: tuple[str, ...], data_root: Path, tell: Tell = stop, labels: LabelsAre | None = None
) -> FolderEntries:
    """The validation part: class folders, or one flat folder with a list of labels.

    Args:
        root: where train lies, too.
        classes: of the training part.
        given: with --data, where a list of labels may lie, too.
        tell: takes what is wrong: none is there, other classes, or a flat folder whose labels are not known.
        labels: how to read names of folders and words of a list; None where only one reading is possible.
    """
    part = next((root / name for name in TEST_FOLDERS if (root / name).is_dir()), None)
    if part is None:
        tell(
            DataError(
                f"{root}: holds no validation folder: searched {', '.join(TEST_FOLDERS)}; add val/<class>/<image>, "
                f"or val/<image> with a list of labels"
            )
        )
        return no_entries(root / TEST_FOLDERS[0], classes)
    walk = _Walk(part, tell)
    folders = walk.class_folders()
    if not folders:
        return _read_flat(walk, root, classes, data_root, labels)
    for path in lists_in([folder for folder in dict.fromkeys((root, data_root)) if folder != part]):
        walk.passed.add("list", "of labels, as there are class folders", os.path.relpath(path, root))
    as_trained = _as_trained(walk, folders, classes, labels)
    entries = _read_classes(walk, as_trained or folders, classes if as_trained else tuple(folders))
    if as_trained and set(as_trained) != set(classes):
        entries.label_source = f"{part}, its class folders read as labels from 0"
    return entries


def _read_flat(
    walk: _Walk, root: Path, classes: tuple[str, ...], data_root: Path, labels: LabelsAre | None
) -> FolderEntries:
    """Images without class folders; those whose label is not known count as of the first class."""
    walk = replace(walk, passed=PassedOver())  # the folder is looked through once more
    part, images = walk.root, walk.images("")
    listed = ListedLabels({})
    if not images:
        walk.tell(DataError(f"{part}: holds no image: must be val/<class>/<image>, or val/<image>; complete the copy"))
    elif classes:
        files = [os.fsdecode(name) for name in images]
        listed = labels_of(Flat(root, part, files, classes, data_root, labels, walk.passed), walk.tell)
    numbers = np.array([listed.labels.get(os.fsdecode(name), 0) for name in images], np.int64)
    lengths = np.array([len(name) for name in images], np.int64)
    names = Names.of([b"".join(images)], [lengths])
    folders = ("",) * max(len(classes), 1)
    return FolderEntries(part, names, numbers, classes, folders, walk.passed, listed.source)
