"""The texts that a recipe may name."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from batchscale.data.examples import Splits
from batchscale.data.language.tokens import BYTES, alphabet, decoded, of_bytes, of_characters, read_bytes
from batchscale.data.language.windows import TextWindows
from batchscale.data.source import ReadAsItLies, Reading, data_folder
from batchscale.errors import DataError
from batchscale.randomness import key, shuffled
from batchscale.words import counted

_HELD_OUT_TOPICS = key(33, 1)  # another one is another data set
_LISTED = 10


@dataclass(frozen=True)
class Text:
    """A training and a test text, as bytes.

    Args:
        train, test: the bytes.
        names: of the two, for errors.
        words: how they were parted.
    """

    train: bytes
    test: bytes
    names: tuple[str, str]
    words: str


@dataclass(frozen=True)
class TextSource(ReadAsItLies):
    """A text in two parts, in memory."""

    holds = "is a text, not images with labels"
    task = "language"

    @abstractmethod
    def texts(self, folder: Path | None, reading: Reading) -> Text:
        """The two parts.

        Raises:
            DataError: files are missing, or are no text.
        """

    def open(self, folder: Path | None, reading: Reading) -> Splits:
        """Sequences of ``reading.sequence`` tokens.

        Raises:
            DataError: as ``texts``; no UTF-8, characters that the training text has not, or less than one sequence.
        """
        text, sequence = self.texts(folder, reading), reading.sequence
        if sequence is None:
            raise DataError(f"data.name={self.name}: needs the tokens of a sequence; give data.sequence=T")
        train, test, vocabulary = _numbered(text, reading.tokens)
        unit = "byte" if vocabulary == BYTES else "character"
        for tokens, name in zip((train, test), text.names, strict=True):
            if len(tokens) <= sequence:
                raise DataError(
                    f"data.sequence={sequence}: {name} has {counted(len(tokens), unit)}: must have {sequence + 1} or "
                    f"more, a sequence and the token after it; lower it, or give more text"
                )
        parts = TextWindows(train, sequence, vocabulary), TextWindows(test, sequence, vocabulary)
        left_out = " and ".join(counted(part.left_out, unit) for part in parts)
        note = f"{text.words}; less than a sequence, and left out at the ends of the parts: {left_out}"
        return Splits(self.name, *parts, 256 if vocabulary == BYTES else len(vocabulary), note=note)

    def summary(self, folder: Path | None, reading: Reading) -> dict[str, Any]:
        """What is in it: lengths of the parts, the vocabulary, how it was parted.

        Raises:
            DataError: as ``open``.
        """
        text = self.texts(folder, reading)
        train, test, vocabulary = _numbered(text, reading.tokens)
        return {
            "name": self.name,
            "faults": [],
            "tokens": reading.tokens,
            "train_tokens": len(train),
            "test_tokens": len(test),
            "vocabulary": vocabulary,
            "vocabulary_size": 256 if vocabulary == BYTES else len(vocabulary),
            "parts": text.words,
        }


def _numbered(text: Text, tokens: str) -> tuple[Any, Any, str]:
    """Both parts as tokens, and the vocabulary, which hangs on the training text alone."""
    if tokens == BYTES:
        return of_bytes(text.train), of_bytes(text.test), BYTES
    train, test = (decoded(part, name) for part, name in zip((text.train, text.test), text.names, strict=True))
    characters = alphabet(train, text.names[0])
    return of_characters(train, characters, text.names[0]), of_characters(test, characters, text.names[1]), characters


def _parted(path: Path, reading: Reading) -> Text:
    """One file: its end is the test part. Characters are counted where tokens are characters."""
    content, share = read_bytes(path), reading.test_share
    if reading.tokens == BYTES:
        cut = len(content) - round(share * len(content))
    else:
        characters = decoded(content, str(path))
        cut = len(characters) - round(share * len(characters))
        if not characters.isascii():
            cut = len(characters[:cut].encode()) + len(content) - len(characters.encode())
    names = f"{path}, its first {1 - share:.4g}", f"{path}, its last {share:.4g}"
    for part, name in zip((content[:cut], content[cut:]), names, strict=True):
        if not part:
            raise DataError(f"data.test_share={share:g}: {name}, is empty; give more text, or another share")
    return Text(content[:cut], content[cut:], names, f"the last {100 * share:g} % of {path.name} is the test part")


@dataclass(frozen=True)
class FileText(TextSource):
    """One named file, or a folder with one .txt file, or with train.txt and val.txt or test.txt.

    Args:
        file: its name; "" for any of the forms of a folder.
    """

    file: str = ""

    def texts(self, folder: Path | None, reading: Reading) -> Text:
        """The text below a folder.

        Raises:
            DataError: no folder, or none of these forms in it.
        """
        root = data_folder(folder)
        if root is None:
            raise DataError(
                f"data.name={self.name}: no folder is named; give it with --data DIR or BATCHSCALE_DATA=DIR"
            )
        candidates = [root / layout for layout in self.layouts]
        pattern = self.file or "*.txt"
        path = next((path for path in candidates if path.is_dir() and any(path.glob(pattern))), None)
        if path is None:
            raise DataError(
                f"data.name={self.name}: no {pattern} in {', '.join(map(str, candidates))}; name the folder that holds "
                f"it with --data DIR or BATCHSCALE_DATA=DIR"
            )
        return _parted(path / self.file, reading) if self.file else _of_folder(path, reading)


def _of_folder(folder: Path, reading: Reading) -> Text:
    files = {path.name: path for path in sorted(folder.glob("*.txt"))}
    tests = [files[name] for name in ("val.txt", "test.txt") if name in files]
    if "train.txt" in files and len(tests) == 2:
        raise DataError(f"{folder}: holds both val.txt and test.txt, and one part is evaluated; move the other away")
    if "train.txt" in files and tests:
        if reading.test_share != Reading.test_share:
            raise DataError(
                f"data.test_share={reading.test_share:g}: {folder} has {tests[0].name} as its test part; leave it out"
            )
        train, test = files["train.txt"], tests[0]
        words = f"{train.name} is trained on, {test.name} is the test part"
        return Text(read_bytes(train), read_bytes(test), (str(train), str(test)), words)
    if len(files) == 1:
        return _parted(next(iter(files.values())), reading)
    listed = ", ".join(list(files)[:_LISTED]) + (", ..." if len(files) > _LISTED else "")
    raise DataError(
        f"{folder}: holds {len(files)} .txt files ({listed}): must be one, or train.txt with val.txt or test.txt; "
        f"leave one of these forms there"
    )


@dataclass(frozen=True)
class TopicsText(TextSource):
    """Python's own documentation topics, which come with it: another version of Python has other ones."""

    def texts(self, folder: Path | None, reading: Reading) -> Text:
        """Whole topics are held out, by one order that hangs on no seed; the folder is not looked at.

        Raises:
            DataError: this Python has no such topics.
        """
        try:
            from pydoc_data.topics import topics
        except ImportError:
            raise DataError(
                f"data.name={self.name}: this Python comes without pydoc_data.topics; use another Python, or "
                f"data.name=text"
            ) from None
        names = sorted(topics)
        order = shuffled(_HELD_OUT_TOPICS, np.arange(len(names)), len(names))
        held = min(max(round(reading.test_share * len(names)), 1), len(names) - 1)
        parts = sorted(order[held:]), sorted(order[:held])
        train, test = ("".join(topics[names[number]] for number in part).encode() for part in parts)
        return Text(train, test, ("the topics trained on", "the topics held out"), f"{held} topics are the test part")


SHAKESPEARE = FileText(
    "shakespeare", 0, mean=(), std=(), layouts=("tinyshakespeare", "shakespeare", "."), file="input.txt"
)
TEXT = FileText("text", 0, mean=(), std=(), layouts=("text", "."))
TOPICS = TopicsText("topics", 0, mean=(), std=())
