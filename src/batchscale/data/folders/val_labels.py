"""Labels of a flat validation folder: the devkit's ground truth, or any list of "file class" lines."""

from __future__ import annotations

import importlib
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from batchscale.data.folders.label_list import (
    Files,
    LabelledFile,
    check_once,
    incomplete,
    is_one_class_a_line,
    read_in_order,
    read_pairs,
    unknown_class,
)
from batchscale.data.official.faults import Tell, stop
from batchscale.data.passed_over import PassedOver
from batchscale.data.readings import LabelsAre, meaning, misfit, names_of, numbers_of, reading
from batchscale.data.text import Line, lines_of
from batchscale.errors import DataError

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
        passed: told of lines that name no image, and of lists that are not used.
    """

    root: Path
    part: Path
    files: Sequence[str]
    classes: tuple[str, ...]
    data_root: Path
    labels: LabelsAre | None = None
    passed: PassedOver = field(default_factory=PassedOver)


@dataclass(frozen=True)
class ListedLabels:
    """What a list of labels says.

    Args:
        labels: file name -> label in [0, classes), of the files whose label is known.
        source: the list, and how its words were read.
    """

    labels: Mapping[str, int]
    source: str = ""


@dataclass(frozen=True)
class _Listed:
    """A list as it was read: image -> label (None: an unknown class), how, and lines that give no image a class."""

    labels: Mapping[str, int | None]
    words_are: str
    useless: Sequence[Line]


def _ids(folders: list[Path]) -> tuple[dict[str, str], Path] | None:
    """ILSVRC2012 id ("1".."1000") -> wnid, from the devkit."""
    path = next((f / name for f in folders for name in _MAPPINGS if (f / name).is_file()), None)
    if path is None:
        return None
    if path.suffix == ".txt":
        rows = [line.text.split() for line in lines_of(path)]
        return {words[1]: words[0] for words in rows if len(words) > 1}, path  # wnid, id, name
    try:
        synsets = importlib.import_module("scipy.io").loadmat(path, squeeze_me=True)["synsets"]
        return {str(int(row["ILSVRC2012_ID"])): str(row["WNID"]) for row in synsets}, path
    except Exception as error:  # a damaged file can raise almost anything
        reason = (error.strerror if isinstance(error, OSError) else "") or "damaged, or another file"
        raise DataError(f"{path}: not the devkit's table of synsets ({reason}); unpack the devkit again") from None


def _numbered_by_devkit(path: Path, classes: tuple[str, ...], folders: list[Path]) -> dict[str, int]:
    """ILSVRC2012 id -> label."""
    label_of, table = names_of(classes), _ids(folders)
    if table is None:
        raise DataError(
            f"{path}: holds ILSVRC2012 ids, and {' or '.join(_MAPPINGS)} of the devkit, which says their classes, "
            f"is not beside it; copy it there, or give a list of 'file class' lines as val_labels.txt"
        )
    ids, where = table
    # The devkit numbers the classes first, then the synsets above them in the tree, which are none.
    strange = [wnid for number, wnid in ids.items() if wnid in label_of and int(number) > len(classes)]
    missing = sorted(label_of.keys() - set(ids.values()))
    if missing or strange:
        raise DataError(
            f"{where}: does not know the classes of train ({', '.join((missing or strange)[:3])}): "
            f"must hold every class folder's name; use the devkit of ILSVRC2012"
        )
    return {number: label_of[wnid] for number, wnid in ids.items() if wnid in label_of}


def lists_in(folders: Sequence[Path]) -> list[Path]:
    """The lists of labels in these folders, the one to be taken first; a link to another is none of its own."""
    lists: dict[Path, Path] = {}
    for path in (folder / name for name in LISTS for folder in folders):
        if path.is_file():
            lists.setdefault(path.resolve(), path)
    return [*lists.values()]


def labels_of(flat: Flat, tell: Tell = stop) -> ListedLabels:
    """The label of every file of a flat validation folder.

    Args:
        flat: the folder.
        tell: takes what is wrong: no label file, unknown classes, words with two meanings, lists that contradict each
            other, or files without a label.
    """
    folders = [flat.root, flat.part, *(flat.root / kit for kit in _DEVKITS), flat.root.parent / _DEVKITS[1]]
    further = [flat.data_root, *([flat.root.parents[2]] if flat.root.parts[-3:] == _KAGGLE else [])]
    near, far = lists_in(folders), lists_in(further)  # the set's own folders count first
    try:
        if not near and not far:
            raise _no_list(flat, further)
        path, *rivals = near or far
        listed = _read(path, flat, folders, tell)
    except DataError as fault:
        tell(fault)
        return ListedLabels({})
    if without := [file for file in flat.files if file not in listed.labels]:
        separator = "," if path.name == KAGGLE else " "
        tell(incomplete(path, without, flat.files, listed.useless, separator))
    for rival in rivals:
        _compare(path, listed, rival, flat, folders, tell)
    unused_lists = {unused.resolve(): unused for unused in (*far, *near)}
    for unused in sorted(unused_lists.keys() - {path.resolve()}):
        flat.passed.add("list", "of labels beside the one used", os.path.relpath(unused_lists[unused], flat.root))
    labels = {file: label for file, label in listed.labels.items() if label is not None}
    return ListedLabels(labels, f"{path}, its words read as {listed.words_are}")


def _compare(path: Path, listed: _Listed, rival: Path, flat: Flat, folders: list[Path], tell: Tell) -> None:
    """Tell where another list, which fits the images and classes as well, gives an image another class."""
    try:
        rival_labels = _read(rival, replace(flat, passed=PassedOver()), folders, stop).labels
    except DataError:  # of other images or classes
        return
    for file, label in listed.labels.items():
        if label is not None and (rival_label := rival_labels.get(file, label)) != label:
            first, second = (flat.classes[number or 0] for number in (label, rival_label))
            tell(
                DataError(
                    f"{path} and {rival}: give {file} two classes, train/{first} and train/{second}: must agree; "
                    f"remove the list that is wrong"
                )
            )
            return


def _no_list(flat: Flat, further: list[Path]) -> DataError:
    searched = dict.fromkeys(str(f) for f in (flat.root, flat.part, flat.root / _DEVKITS[0], *further))
    return DataError(
        f"{flat.part}: holds images without class folders, and no list of their labels was found: searched "
        f"{', '.join(LISTS)} in {', '.join(searched)}; put one there, or sort the images "
        f"into class folders"
    )


def _read(path: Path, flat: Flat, folders: list[Path], tell: Tell) -> _Listed:
    """A list, its words as labels of this folder's images."""
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
        pairs = read_in_order(path, flat.part, lines, flat.files)  # ordered by definition, or by all that it holds
    else:
        pairs = read_pairs(path, lines, files, words, flat.passed)
    check_once(path, pairs)
    words_are, used = "ILSVRC2012 ids of the devkit", {pair.word for pair in pairs}
    if numbers is None:
        labels_are = reading(used, flat.classes, flat.labels, f"{path}")
        numbers = meaning(labels_are, flat.classes)
        words_are = "names of classes" if labels_are == "names" else "labels from 0"
    if unknown := [pair for pair in pairs if pair.word not in numbers]:
        reason = misfit(unknown[0].word, used, flat.classes, flat.labels)
        if path.name == GROUND_TRUTH:
            reason = "the devkit has no class of train with this id"
        tell(unknown_class(path, unknown, reason))
    useful = {pair.line for pair in pairs}
    useless = [line for line in lines if line not in useful and not line.text.startswith("ImageId,")]
    return _Listed({pair.file: numbers.get(pair.word) for pair in pairs}, words_are, useless)


def _kaggle(lines: Sequence[Line], files: Files, passed: PassedOver) -> list[LabelledFile]:
    """Kaggle's rows: an image, a comma, then a class and a box for each object in it, all of one class."""
    pairs = []
    for line in lines:
        name, _, objects = line.text.partition(",")
        file = files.get(name.strip())
        if file is not None and objects.strip():
            pairs.append(LabelledFile(file, objects.split()[0], line))
        elif name != "ImageId":
            passed.add("line", f"of {KAGGLE} that names no image", line.text)
    return pairs
