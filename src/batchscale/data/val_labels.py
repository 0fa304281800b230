"""Labels of a flat validation folder: the devkit's ground truth, or any list of "file class" lines."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path

from batchscale.data.faults import Tell, stop
from batchscale.errors import DataError
from batchscale.words import counted

GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
LISTS = (
    "val_labels.txt",
    "val.txt",
    "LOC_val_solution.csv",
    "imagenet_2012_validation_synset_labels.txt",
    GROUND_TRUTH,
)
"""Names of label files, looked for in this order: in the data set's folder, in the validation folder, in the devkit;
then in the folder given with --data and at the top of Kaggle's archive."""

_MAPPINGS = ("meta.mat", "map_clsloc.txt")
_DEVKITS = ("devkit/data", "ILSVRC2012_devkit_t12/data")
_KAGGLE = ("ILSVRC", "Data", "CLS-LOC")
"""Where train and val lie in Kaggle's archive, the list of labels being at its top."""


def _lines(path: Path) -> list[list[str]]:
    """The words of every line, cut at blanks and commas; a heading left out."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as text ({error}); fetch the file again") from None
    lines = [line.replace(",", " ").split() for line in text.splitlines() if line.strip()]
    return lines[1:] if lines and lines[0][0] == "ImageId" else lines


def _ids(folders: list[Path]) -> tuple[dict[str, str], Path] | None:
    """ILSVRC2012 id ("1".."1000") -> wnid, from the devkit."""
    path = next((f / name for f in folders for name in _MAPPINGS if (f / name).is_file()), None)
    if path is None:
        return None
    if path.suffix == ".txt":
        return {words[1]: words[0] for words in _lines(path) if len(words) > 1}, path
    try:
        synsets = importlib.import_module("scipy.io").loadmat(path, squeeze_me=True)["synsets"]
        return {str(int(row["ILSVRC2012_ID"])): str(row["WNID"]) for row in synsets}, path
    except Exception as error:  # a damaged file can raise almost anything
        reason = " ".join(f"{error}".split())
        raise DataError(f"{path}: not the devkit's table of synsets ({reason}); unpack the devkit again") from None


def _numbered(path: Path, classes: tuple[str, ...], folders: list[Path]) -> dict[str, int]:
    """Word of a label file -> label."""
    known = {name: label for label, name in enumerate(classes)}
    if path.name != GROUND_TRUTH:
        return {**{str(label): label for label in range(len(classes))}, **known}
    found = _ids(folders)
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


def _found(folders: list[Path]) -> Path | None:
    return next((f / name for name in LISTS for f in folders if (f / name).is_file()), None)


def labels_of(
    root: Path, part: Path, files: list[str], classes: tuple[str, ...], given: Path, tell: Tell = stop
) -> Mapping[str, int]:
    """The label of every file of a flat validation folder.

    Args:
        root: the data set's folder.
        part: the validation folder.
        files: sorted.
        classes: of the training part, in the order of the labels.
        given: the folder that --data names.
        tell: takes what is wrong: no label file, unknown classes, or files without a label.

    Returns:
        File name -> label in [0, classes), of the files whose label is known.
    """
    try:
        pairs, numbers, path = _pairs(root, part, files, classes, given)
    except DataError as fault:
        tell(fault)
        return {}
    unknown = {file: word for file, word in pairs if word not in numbers}
    if unknown:
        file, word = next(iter(unknown.items()))
        tell(
            DataError(
                f"{path}: gives {file} the class {word!r}: no class folder of train has that name "
                f"({counted(len(unknown), 'such file')})"
            )
        )
    by_name = {file: numbers[word] for file, word in pairs if word in numbers}
    found = {file: by_name.get(file, by_name.get(Path(file).stem)) for file in files}
    without = [f for f, label in found.items() if label is None and not {f, Path(f).stem} & unknown.keys()]
    if without:
        tell(
            DataError(
                f"{path}: has no label for {without[0]} ({len(without)} of {counted(len(files), 'image')}): complete it"
            )
        )
    return {file: label for file, label in found.items() if label is not None}


def _pairs(
    root: Path, part: Path, files: list[str], classes: tuple[str, ...], given: Path
) -> tuple[list[tuple[str, str]], dict[str, int], Path]:
    """(file, word) of every line of the list, word -> label, and the list.

    Raises:
        DataError: there is none, or it cannot be this set's.
    """
    folders = [root, part, *(root / kit for kit in _DEVKITS), root.parent / _DEVKITS[1]]
    further = [given, *([root.parents[2]] if root.parts[-3:] == _KAGGLE else [])]
    path = _found(folders) or _found(further)
    if path is None:
        searched = dict.fromkeys(str(f) for f in (root, part, root / _DEVKITS[0], *further))
        raise DataError(
            f"{part}: holds images without class folders, and no list of their labels was found: searched "
            f"{', '.join(LISTS)} in {', '.join(searched)}; put one there, or sort the images "
            f"into class folders"
        )
    lines, numbers = _lines(path), _numbered(path, classes, folders)
    if all(len(words) == 1 for words in lines):  # one class a line, in the order of the files
        if len(lines) != len(files):
            raise DataError(
                f"{path}: has {counted(len(lines), 'line')} for the {counted(len(files), 'image')} of {part}: must be "
                f"one for each; complete the copy, or give 'file class' lines"
            )
        return [(file, words[0]) for file, words in zip(files, lines, strict=True)], numbers, path
    return [(words[0], words[1]) for words in lines if len(words) > 1], numbers, path
