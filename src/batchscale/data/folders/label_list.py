"""Reading a list of labels: which image each line names, and by which word its class.

A line is a file, a separator and a class, or a class alone. Names of files and of classes may hold blanks, commas and
all else, so a line is cut wherever that gives a known file and a known class; where two cuts do, it is refused.

Cost: one look at every separator of every line.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from batchscale.data.passed_over import PassedOver
from batchscale.data.text import Line, encoding_fault, quoted, unquoted
from batchscale.errors import DataError
from batchscale.words import counted

_SEPARATOR = re.compile(r"\s*[,;]\s*|\s+")
_ALONE = re.compile(r"[^\s,;]+")


@dataclass(frozen=True)
class LabelledFile:
    """An image, the word of its class, and the line that says so."""

    file: str
    word: str
    line: Line


class Files:
    """The images of a flat folder, by their names and by these without extension, where only one has it."""

    def __init__(self, files: Sequence[str]) -> None:
        stems = Counter(Path(file).stem for file in files)
        self.files = files
        self._known = {Path(file).stem: file for file in files if stems[Path(file).stem] == 1}
        self._known |= {file: file for file in files}

    def get(self, name: str) -> str | None:
        """The image of this name."""
        return self._known.get(name)


def _cuts(text: str) -> Iterator[tuple[str, str]]:
    """Every way to part a line in two."""
    for separator in _SEPARATOR.finditer(text):
        yield unquoted(text[: separator.start()]), unquoted(text[separator.end() :])


def read_pairs(
    path: Path, lines: Sequence[Line], files: Files, words: Collection[str], passed: PassedOver
) -> list[LabelledFile]:
    """Lines of a file and a class, known or not; those that name no image are passed over.

    Args:
        path: of the list.
        lines: of it.
        files: the images.
        words: that may stand for a class.
        passed: told of lines that name no image.

    Raises:
        DataError: a line can be read in two ways.
    """
    pairs = []
    for line in lines:
        named = [(file, word) for name, word in _cuts(line.text) if (file := files.get(name)) is not None]
        of_known_class = [(file, word) for file, word in dict.fromkeys(named) if word in words]
        if len(of_known_class) > 1:
            ways = " or ".join(f"{quoted(file)} of the class {quoted(word)}" for file, word in of_known_class[:2])
            raise DataError(
                f"{path}: {line}: can be read in two ways: {ways}; write it as CSV with quotes, or rename the files"
            )
        if named:
            pairs.append(LabelledFile(*(of_known_class or named)[0], line))
        else:
            passed.add("line", f"of {path.name} that names no image", line.text)
    return pairs


def unknown_class(path: Path, unknown: Sequence[LabelledFile], reason: str) -> DataError:
    """That images have a class that train lacks; the reason is that of the first."""
    first = unknown[0]
    return DataError(
        f"{path}: line {first.line.number} gives {first.file} the class {quoted(first.word)}: {reason} "
        f"({counted(len(unknown), 'such file')}); {encoding_fault(first.word)}correct the list"
    )


def incomplete(
    path: Path, without: Sequence[str], files: Sequence[str], useless: Sequence[Line], separator: str
) -> DataError:
    """That images have no label.

    Args:
        path: of the list.
        without: images that it does not name.
        files: all images.
        useless: its lines that give no image a class.
        separator: of file and class.
    """
    number = f"{len(without)} of {counted(len(files), 'image')}"
    if not useless:
        return DataError(f"{path}: has no label for {without[0]} ({number}): complete it")
    gives = "line gives" if len(useless) == 1 else "lines give"
    return DataError(
        f"{path}: has no label for {without[0]} ({number}), and {len(useless)} {gives} no image a class, first "
        f"{useless[0]}: must be '{without[0]}{separator}CLASS': the file's name first, letter for letter, without "
        f"folders (without extension where no other file has that name); {encoding_fault(useless[0].text)}correct or "
        f"complete it"
    )


def check_once(path: Path, pairs: Sequence[LabelledFile]) -> None:
    """Raise where an image is given two classes."""
    first: dict[str, LabelledFile] = {}
    for pair in pairs:
        if (first_pair := first.setdefault(pair.file, pair)).word != pair.word:
            raise DataError(
                f"{path}: {first_pair.line} and {pair.line} give {pair.file} two classes: must be one; remove a line"
            )


def is_one_class_a_line(lines: Sequence[Line], files: Files, words: Collection[str]) -> bool:
    """Whether lines are classes alone, as far as can be told: none names an image, all are known or single words."""
    if any(files.get(name) is not None for line in lines for name, _ in _cuts(line.text)):
        return False
    whole = all(unquoted(line.text) in words for line in lines)
    return whole or all(_ALONE.fullmatch(line.text) for line in lines)


def read_in_order(path: Path, part: Path, lines: Sequence[Line], files: Sequence[str]) -> list[LabelledFile]:
    """One class a line, in the order of the images.

    Raises:
        DataError: more or fewer lines than images, or images whose names have more than one order.
    """
    if len(lines) != len(files):
        raise DataError(
            f"{path}: has {counted(len(lines), 'line')} for the {counted(len(files), 'image')} of {part}: must be "
            f"one for each; complete the copy, or give 'file class' lines"
        )
    for order, key in (("by the numbers in them", _by_numbers), ("without regard to case", str.casefold)):
        for place, (file, other) in enumerate(zip(files, sorted(files, key=key), strict=True), 1):
            if file != other:
                raise DataError(
                    f"{path}: one class a line goes by the order of the images, and their names have two: number "
                    f"{place} is {file} letter by letter, {other} {order}; give 'file class' lines"
                )
    return [LabelledFile(file, unquoted(line.text), line) for file, line in zip(files, lines, strict=True)]


def _by_numbers(name: str) -> list[str | int]:
    return [int(part) if index % 2 else part for index, part in enumerate(re.split("([0-9]+)", name))]
