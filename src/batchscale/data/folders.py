"""Image folders as users have them: train/<class>/*, val/<class>/*, a flat validation folder, ImageNet-V2.

Classes are numbered in the order of their folders' names; where the names are the numbers 0..C-1, by number.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from batchscale.data.entries import FolderEntries, Names
from batchscale.data.faults import Tell, stop
from batchscale.data.val_labels import labels_of
from batchscale.errors import DataError
from batchscale.words import counted

TEST_FOLDERS = ("val", "validation", "valid", "test")
_EXTENSIONS = (b".jpeg", b".jpg", b".png", b".bmp", b".ppm", b".pgm", b".tif", b".tiff", b".webp")


def _shown(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f", ... ({len(names)})" if len(names) > 3 else "")


def _listed(folder: bytes, tell: Tell) -> list[os.DirEntry[bytes]]:
    try:
        with os.scandir(folder) as entries:
            return sorted((e for e in entries if not e.name.startswith(b".")), key=lambda e: e.name)
    except OSError as error:
        reason = error.strerror or error
    tell(
        DataError(
            f"{os.fsdecode(folder)}: cannot be read ({reason}): must be a readable folder; change its permissions"
        )
    )
    return []


def _is_folder(entry: os.DirEntry[bytes], tell: Tell) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:
        reason = error.strerror or error
    tell(
        DataError(
            f"{os.fsdecode(entry.path)}: cannot be followed ({reason}): must be an image, a folder or a link to one; "
            f"remove it"
        )
    )
    return False


def _files(folder: bytes, tell: Tell, below: bytes = b"", above: tuple[os.stat_result, ...] = ()) -> Iterator[bytes]:
    """Files of a folder and all below it, relative to it, sorted; ``above`` are the folders that it lies in."""
    entries, here = _listed(folder, tell), os.stat(folder)
    if any(os.path.samestat(here, one) for one in above):
        tell(DataError(f"{os.fsdecode(folder)}: a link leads back to a folder above it: must not; remove the link"))
        return
    for entry in entries:
        if _is_folder(entry, tell):
            yield from _files(entry.path, tell, below + entry.name + b"/", (*above, here))
        else:
            yield below + entry.name


def _images(folder: Path, tell: Tell) -> tuple[list[bytes], int]:
    """Image files by their extension, and how many others there are."""
    found = list(_files(os.fsencode(folder), tell))
    images = [name for name in found if name.lower().endswith(_EXTENSIONS)]
    return images, len(found) - len(images)


def class_folders(part: Path, tell: Tell = stop) -> list[str]:
    """Names of the class folders, in the order of the labels."""
    names = [os.fsdecode(e.name) for e in _listed(os.fsencode(part), tell) if _is_folder(e, tell)]
    numbers = {str(n) for n in range(len(names))}
    return sorted(names, key=int) if set(names) == numbers else names


def read_classes(part: Path, folders: list[str], classes: tuple[str, ...], tell: Tell = stop) -> FolderEntries:
    """The files of class folders.

    Args:
        part: such as .../train.
        folders: below it, in the order of the labels.
        classes: names, in the same order.
        tell: takes every class without an image, and folders that cannot be read.
    """
    blocks, lengths, counts, others, empty = [], [], [], 0, []
    for folder in folders:
        images, rest = _images(part / folder, tell)
        if not images:
            empty.append(folder)
        others += rest
        blocks.append(b"".join(images))
        lengths.append(np.array([len(name) for name in images], np.int64))
        counts.append(len(images))
    if empty:
        tell(
            DataError(
                f"{part}: {len(empty)} of {counted(len(folders), 'class folder')} without an image: {_shown(empty)}; "
                f"fill them, or take them away from training and validation alike"
            )
        )
    labels = np.repeat(np.arange(len(folders)), np.array(counts, np.int64))
    return FolderEntries(part, Names.of(blocks, lengths), labels, classes, tuple(folders), others)


def read_train(root: Path, tell: Tell = stop) -> FolderEntries:
    """root/train/<class>/*; tell takes what is wrong with it, such as no class folders."""
    part = root / "train"
    folders = class_folders(part, tell)
    if not folders:
        tell(DataError(f"{part}: holds no class folders: must be train/<class>/<image>; make one folder a class"))
    return read_classes(part, folders, tuple(folders), tell)


def _as_trained(
    part: Path, folders: list[str], classes: tuple[str, ...], tell: Tell
) -> tuple[list[str], tuple[str, ...]]:
    """The validation folders in the order of the training classes, and these; as they are where they are others."""
    if set(folders) == set(classes):
        return list(classes), classes
    if set(folders) == {str(n) for n in range(len(classes))}:  # ImageNet-V2: folders named by the label
        return folders, classes
    lacking, more = sorted(set(classes) - set(folders)), sorted(set(folders) - set(classes))
    said = [f"{part.name} lacks {_shown(lacking)}"] * bool(lacking) + [f"train lacks {_shown(more)}"] * bool(more)
    if classes:  # else it was told that there are none
        tell(
            DataError(
                f"{part.parent}: class folders of train ({len(classes)}) and {part.name} ({len(folders)}) differ: "
                f"{'; '.join(said)}: must be the same; complete the copy, or remove what is too much"
            )
        )
    return folders, tuple(folders)


def read_test(root: Path, classes: tuple[str, ...], given: Path, tell: Tell = stop) -> FolderEntries:
    """The validation part: class folders, or one flat folder with a list of labels.

    Args:
        root: where train lies, too.
        classes: of the training part.
        given: with --data, where a list of labels may lie, too.
        tell: takes what is wrong: none is there, other classes, or a flat folder whose labels are not known.
    """
    part = next((root / name for name in TEST_FOLDERS if (root / name).is_dir()), None)
    if part is None:
        tell(
            DataError(
                f"{root}: holds no validation folder: searched {', '.join(TEST_FOLDERS)}; add val/<class>/<image>, "
                f"or val/<image> with a list of labels"
            )
        )
        return read_classes(root / TEST_FOLDERS[0], [], classes, tell)
    folders = class_folders(part, tell)
    if not folders:
        return _read_flat(root, part, classes, given, tell)
    return read_classes(part, *_as_trained(part, folders, classes, tell), tell)


def _read_flat(root: Path, part: Path, classes: tuple[str, ...], given: Path, tell: Tell) -> FolderEntries:
    """Images without class folders; those whose label is not known count as of the first class."""
    images, others = _images(part, tell)
    known: Mapping[str, int] = {}
    if not images:
        tell(DataError(f"{part}: holds no image: must be val/<class>/<image>, or val/<image>; complete the copy"))
    elif classes:
        known = labels_of(root, part, [os.fsdecode(name) for name in images], classes, given, tell)
    labels = np.array([known.get(os.fsdecode(name), 0) for name in images], np.int64)
    lengths = np.array([len(name) for name in images], np.int64)
    names = Names.of([b"".join(images)], [lengths])
    return FolderEntries(part, names, labels, classes, ("",) * max(len(classes), 1), others)
