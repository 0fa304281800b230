"""Labels of a flat validation folder: the devkit's ground truth, or any list of "file class" lines."""

from __future__ import annotations

import importlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from batchscale.data.faults import Tell, stop
from batchscale.data.label_list import (
    Files,
    Labelled,
    check_once,
    is_one_class_a_line,
    read_in_order,
    read_pairs,
    unknown_class,
)
from batchscale.data.passed_over import PassedOver
from batchscale.data.readings import LabelsAre, names_of, numbers_of, reading
from batchscale.data.text import Line, lines_of
from batchscale.errors import DataError
from batchscale.words import counted

GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
SYNSETS = "imagenet_2012_validation_synset_labels.txt"
KAGGLE = "LOC_val_solution.csv"
LISTS = ("val_labels.txt", "val.txt", KAGGLE, SYNSETS, GROUND_TRUTH)
"""Names of label files, looked for in this order: in the data set's folder, in the validation folder, in the devkit;
then in the folder given with --data and at the top of Kaggle's archive."""

_MAPPINGS = ("meta.mat", "map_clsloc.txt")
_DEVKITS = ("devkit/data", "ILSVRC2012_devkit_t12/data")
_KAGGLE = ("ILSVRC", "Data", "CLS-LOC")
"""Where train and val lie in Kaggle's archive, the list of labels being at its top."""


@dataclass(frozen=True)
class Flat:
    """A flat validation folder.

    Args:
        root: the data set's folder.
        part: the validation folder.
        files: its images, sorted.
        classes: of the training part, in the order of the labels.
        given: the folder that --data names.
        labels: how the user says to read the words of a list.
        passed: told of lines that name no image.
    """

    root: Path
    part: Path
    files: Sequence[str]
    classes: tuple[str, ...]
    given: Path
    labels: LabelsAre | None = None
    passed: PassedOver = field(default_factory=PassedOver)


def _ids(folders: list[Path]) -> tuple[dict[str, str], Path] | None:
    """ILSVRC2012 id ("1".."1000") -> wnid, from the devkit."""
    path = next((f / name for f in folders for name in _MAPPINGS if (f / name).is_file()), None)
    if path is None:
        return None
    if path.suffix == ".txt":
        rows = [line.text.split() for line in lines_of(path)]
        return {words[1]: words[0] for words in rows if len(words) > 1}, path
    try:
        synsets = importlib.import_module("scipy.io").loadmat(path, squeeze_me=True)["synsets"]
        return {str(int(row["ILSVRC2012_ID"])): str(row["WNID"]) for row in synsets}, path
    except Exception as error:  # a damaged file can raise almost anything
        reason = " ".join(f"{error}".split())
        raise DataError(f"{path}: not the devkit's table of synsets ({reason}); unpack the devkit again") from None


def _numbered_by_devkit(path: Path, classes: tuple[str, ...], folders: list[Path]) -> dict[str, int]:
    """ILSVRC2012 id -> label."""
    known, found = names_of(classes), _ids(folders)
    if found is None:
        raise DataError(
            f"{path}: holds ILSVRC2012 ids, and {' or '.join(_MAPPINGS)} of the devkit, which says their classes, "
            f"is not beside it; copy it there, or give a list of 'file class' lines as val_labels.txt"
        )
    ids, where = found
    strange = [wnid for number, wnid in ids.items() if wnid in known and int(number) > len(classes)]
    missing = sorted(known.keys() - set(ids.values()))
    if missing or strange:
        raise DataError(
            f"{where}: does not know the classes of train ({', '.join((missing or strange)[:3])}): "
            f"must hold every class folder's name; use the devkit of ILSVRC2012"
        )
    return {number: known[wnid] for number, wnid in ids.items() if wnid in known}


def _list_in(folders: list[Path]) -> Path | None:
    return next((f / name for name in LISTS for f in folders if (f / name).is_file()), None)


def labels_of(flat: Flat, tell: Tell = stop) -> Mapping[str, int]:
    """The label of every file of a flat validation folder.

    Args:
        flat: the folder.
        tell: takes what is wrong: no label file, unknown classes, words with two meanings, or files without a label.

    Returns:
        File name -> label in [0, classes), of the files whose label is known.
    """
    folders = [flat.root, flat.part, *(flat.root / kit for kit in _DEVKITS), flat.root.parent / _DEVKITS[1]]
    further = [flat.given, *([flat.root.parents[2]] if flat.root.parts[-3:] == _KAGGLE else [])]
    path = _list_in(folders) or _list_in(further)
    try:
        if path is None:
            raise _no_list(flat, further)
        labels = _labels(path, flat, folders, tell)
    except DataError as fault:
        tell(fault)
        return {}
    if without := [file for file in flat.files if file not in labels]:
        number = f"{len(without)} of {counted(len(flat.files), 'image')}"
        tell(DataError(f"{path}: has no label for {without[0]} ({number}): complete it"))
    return {file: label for file, label in labels.items() if label is not None}


def _no_list(flat: Flat, further: list[Path]) -> DataError:
    searched = dict.fromkeys(str(f) for f in (flat.root, flat.part, flat.root / _DEVKITS[0], *further))
    return DataError(
        f"{flat.part}: holds images without class folders, and no list of their labels was found: searched "
        f"{', '.join(LISTS)} in {', '.join(searched)}; put one there, or sort the images "
        f"into class folders"
    )


def _labels(path: Path, flat: Flat, folders: list[Path], tell: Tell) -> dict[str, int | None]:
    """File -> label, of all images in the list; None where the class is unknown."""
    lines = lines_of(path)
    words: Collection[str] = names_of(flat.classes).keys() | numbers_of(flat.classes).keys()
    numbers: Mapping[str, int] | None = None
    if path.name == GROUND_TRUTH:
        numbers = _numbered_by_devkit(path, flat.classes, folders)
        words = numbers.keys()
    files = Files(flat.files)
    if path.name == KAGGLE:
        pairs = _kaggle(lines, files, flat.passed)
    elif path.name in (SYNSETS, GROUND_TRUTH) or is_one_class_a_line(lines, files, words):
        pairs = read_in_order(path, flat.part, lines, flat.files)
    else:
        pairs = read_pairs(path, lines, files, words, flat.passed)
    check_once(path, pairs)
    if numbers is None:
        numbers = reading({pair.word for pair in pairs}, flat.classes, flat.labels, f"{path}")
    if unknown := [pair for pair in pairs if pair.word not in numbers]:
        tell(unknown_class(path, unknown))
    return {pair.file: numbers.get(pair.word) for pair in pairs}


def _kaggle(lines: Sequence[Line], files: Files, passed: PassedOver) -> list[Labelled]:
    """Kaggle's rows: an image, a comma, then a class and a box for each object in it, all of one class."""
    pairs = []
    for line in lines:
        name, _, objects = line.text.partition(",")
        file = files.get(name.strip())
        if file is not None and objects.strip():
            pairs.append(Labelled(file, objects.split()[0], line))
        elif name != "ImageId":
            passed.add("line", f"of {KAGGLE} that names no image", line.text)
    return pairs
