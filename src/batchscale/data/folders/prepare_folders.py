"""`batchscale data check` and `prepare` for image folders: look at every file; write the packed form."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from batchscale.data.folders.entries import Entries
from batchscale.data.folders.folder_source import FolderSource
from batchscale.data.folders.folders import TEST_FOLDERS
from batchscale.data.folders.inspect import inspect, summary
from batchscale.data.folders.pack import Smaller, pack
from batchscale.data.folders.packed import PackedEntries, index_of
from batchscale.data.readings import LabelsAre
from batchscale.errors import DataError
from batchscale.system.cores import available_cores
from batchscale.words import counted, shown


def check_folders(source: FolderSource, folder: Path | None, labels: LabelsAre | None = None) -> dict[str, Any]:
    """Decode every image of both parts, whatever is wrong with their folders.

    Args:
        source: of DATASETS.
        folder: what --data names.
        labels: how to read the labels of the validation part; None where only one reading is possible.

    Returns:
        name, folder, faults (of the folders, a line each), notes (what was chosen among several that are there),
        classes, and train and val: images, images_per_class, bad and damaged (file -> reason), kinds, shortest_side,
        longest_side, other_files, passed_over (what is no image of the part: kind -> number and first names), packed.

    Raises:
        DataError: no folder holds the set.
    """
    faults: list[str] = []

    def tell(fault: DataError) -> None:
        faults.append(str(fault))

    parts = source.parts(folder, tell, labels)
    root = source.root(folder)
    return {
        "name": source.name,
        "folder": shown(str(root)),
        "faults": faults,
        "notes": _notes(root, parts),
        "classes": len(parts[0].classes),
        **{
            part: summary(entries, inspect(entries, part, available_cores(), tell))
            for part, entries in zip(("train", "val"), parts, strict=True)
        },
    }


def _notes(root: Path, parts: tuple[Entries, Entries]) -> list[str]:
    """What a user may not expect of a set that has no fault."""
    notes, classes, packed = [], parts[0].classes, isinstance(parts[0], PackedEntries)
    test_folders = [name for name in TEST_FOLDERS if (root / name).is_dir()]
    if packed and (also := [name for name in ("train", *test_folders) if (root / name).is_dir()]):
        notes.append(f"the packed form is taken, and {' and '.join(also)} beside it passed over")
    elif len(test_folders) > 1:
        notes.append(
            f"{test_folders[0]} is the validation part, and {' and '.join(test_folders[1:])} beside it passed over"
        )
    if classes and all(name.isdecimal() for name in classes) and list(classes) != sorted(classes, key=int):
        numbers = ", ".join(classes[:4])
        last, more = len(classes) - 1, ", ..." if len(classes) > 4 else ""
        notes.append(
            f"class folders are numbered, but not 0..{last}: labels go by their names as text: {numbers}{more}"
        )
    if source := parts[1].label_source:
        notes.append(shown(f"labels of the validation part are those of {source}"))
    alike = Counter(name.casefold() for name in classes)
    if twins := [shown(name) for name in classes if alike[name.casefold()] > 1]:
        notes.append(f"class folders that differ in upper and lower case alone: {', '.join(twins[:4])}")
    return notes


def _pack_both(
    parts: tuple[Entries, Entries], into: Path, smaller: Smaller | None, skip_bad: bool, labels: LabelsAre | None
) -> dict[str, str]:
    """Write both parts, or neither; returns what was left out."""
    files = [index_of(into, part).with_suffix(end) for part in ("train", "val") for end in (".index", ".images")]
    new_files = [file for file in files if not file.exists()]
    left_out: dict[str, str] = {}
    try:
        for part, entries in (("val", parts[1]), ("train", parts[0])):  # train.index last: it makes the folder a set
            left_out |= pack(entries, part, into, smaller, skip_bad, available_cores(), labels)
    except BaseException:  # an interrupt, too
        for file in new_files:
            file.unlink(missing_ok=True)
        raise
    return left_out


def _make_folder(into: Path, root: Path) -> None:
    """Make the folder of the packed form, unless it would be taken for a class or holds a packed set."""
    for part in ("train", *TEST_FOLDERS):
        if into.resolve().is_relative_to(root / part):
            raise DataError(f"--out={into}: lies within {root / part}, whose folders are classes; give a DIR beside it")
    existing = [str(index) for part in ("train", "val") if (index := index_of(into, part)).exists()]
    if existing:
        raise DataError(f"--out={into}: holds {existing[0]} already: is never overwritten; give another --out DIR")
    try:
        into.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"--out={into}: cannot be made ({error.strerror or error}); give another --out DIR") from None


def prepare_folders(
    source: FolderSource,
    folder: Path | None,
    out: Path | None,
    smaller: Smaller | None,
    skip_bad: bool,
    labels: LabelsAre | None = None,
) -> dict[str, Any]:
    """Write the packed form of both parts into a folder of its own.

    Args:
        source: of DATASETS.
        folder: what --data names.
        out: where to; None for the set's folder with -packed after its name.
        smaller: None to keep every image's bytes.
        skip_bad: leave out what cannot be read.
        labels: how to read the labels of the validation part; None where only one reading is possible.

    Returns:
        name, folder, left_out (file -> reason), passed_over (what lies beside the images), and message, one line.

    Raises:
        DataError: an unreadable image, a folder that holds another packed set or cannot be written.
    """
    root = source.root(folder).resolve()
    parts = source.parts(folder, labels=labels)
    if isinstance(parts[0], PackedEntries):
        return {
            "name": source.name,
            "folder": shown(str(root)),
            "left_out": {},
            "passed_over": {},
            "message": shown(f"{source.name} in {root}: is in packed form already; ")
            + "`batchscale data check` reads all of it",
        }
    into = out or root.with_name(f"{root.name}-packed")
    _make_folder(into, root)
    left_out = _pack_both(parts, into, smaller, skip_bad, labels)
    images = len(parts[0]) + len(parts[1]) - len(left_out)
    omitted = f", {len(left_out)} unreadable left out" if left_out else ""
    passed = {part: entries.passed_over for part, entries in zip(("train", "val"), parts, strict=True)}
    omitted += "".join(f", passed over in {part}: {what}" for part, what in passed.items() if what)
    packed = f"{source.name}: {counted(images, 'image')} packed into {into}{omitted}; train with --data {into}"
    return {
        "name": source.name,
        "folder": shown(str(into)),
        "left_out": left_out,
        "passed_over": {part: what.record() for part, what in passed.items()},
        "message": shown(packed),
    }
