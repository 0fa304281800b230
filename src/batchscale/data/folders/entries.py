"""Millions of image files as a few arrays: names in one block of bytes, labels; no Python object for each.

Cost: 16 bytes an image, and its name.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from batchscale.data.contents import digest
from batchscale.data.folders.jpeg import BadImage
from batchscale.data.passed_over import PassedOver
from batchscale.words import shown

_AT_ONCE = 1 << 16  # names in memory while they are hashed


@dataclass(frozen=True)
class Names:
    """N names: name i is text[starts[i]:starts[i + 1]].

    Args:
        text: uint8 (bytes,).
        starts: int64 (N + 1,).
    """

    text: npt.NDArray[np.uint8]
    starts: npt.NDArray[np.int64]

    @classmethod
    def of(cls, blocks: Sequence[bytes], lengths: Sequence[npt.NDArray[np.int64]]) -> Names:
        """From names laid end to end in blocks, and their lengths."""
        starts = np.concatenate([np.zeros(1, np.int64), *lengths])
        return cls(np.frombuffer(b"".join(blocks), np.uint8), np.cumsum(starts, out=starts))

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, entry: int) -> str:
        return os.fsdecode(self.text[self.starts[entry] : self.starts[entry + 1]].tobytes())

    def last_parts(self, entries: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.generic]]:
        """What follows the last "/" of these names, in order: lengths int64, then the text, of so many at once."""
        # Every place behind a "/": the last of them that lies within a name begins its last part.
        parts = np.concatenate([np.zeros(1, np.int64), np.flatnonzero(self.text == ord("/")) + 1])
        for first in range(0, len(entries), _AT_ONCE):
            chunk = entries[first : first + _AT_ONCE]
            ends = self.starts[chunk + 1]
            firsts = np.maximum(self.starts[chunk], parts[np.searchsorted(parts, ends, "right") - 1])
            lengths = ends - firsts
            # One index for all parts end to end: byte j of the result is byte j + (end of its part in the text - in the
            # result) of the text.
            places = np.repeat(ends - np.cumsum(lengths), lengths) + np.arange(lengths.sum())
            yield from (lengths, self.text[places])


class Entries(ABC):
    """The image files of one part of a data set, in file order.

    Attributes:
        labels: int64 (N,).
        classes: names, in the order of the labels.
        names: of the files; what they are relative to, the subclass says.
        form: what became of the images' own bytes, in words.
        passed_over: what lies beside the images and is none of them.
        label_source: where the labels are from, in words; "" for class folders that are named by their classes.
    """

    labels: npt.NDArray[np.int64]
    classes: tuple[str, ...]
    names: Names
    form = "their own bytes"
    label_source = ""
    passed_over: PassedOver

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def name(self, entry: int) -> str:
        """Where the file lies; its last part is the file's name."""

    def shown(self, entry: int) -> str:
        """The same for a message or a record: a name may hold bytes that no terminal, page or JSON takes."""
        return shown(self.name(entry))

    @abstractmethod
    def read(self, entry: int) -> bytes:
        """The bytes of the file.

        Raises:
            BadImage: it cannot be read.
        """

    def digests(self, entries: npt.NDArray[np.int64]) -> dict[str, str]:
        """What is known of these files without reading one, in their order; see ``contents.py``."""
        return {"names": digest(self.names.last_parts(entries)), "form": self.form}


class FolderEntries(Entries):
    """Files in class folders, or in one folder.

    Args:
        root: what the names are relative to.
        names: of the files, below root/<the class's folder>.
        labels: int64 (N,).
        classes: names, in the order of the labels.
        folders: of each class, below root; "" where all files lie in root.
        passed: what lies there and is no image of the part.
        label_source: see Entries.
    """

    def __init__(
        self,
        root: Path,
        names: Names,
        labels: npt.NDArray[np.int64],
        classes: tuple[str, ...],
        folders: tuple[str, ...],
        passed: PassedOver,
        label_source: str = "",
    ) -> None:
        self.root, self.names, self.labels, self.classes = root, names, labels, classes
        self._folders, self.passed_over, self.label_source = folders, passed, label_source

    def name(self, entry: int) -> str:
        """The path."""
        return os.path.join(self.root, self._folders[self.labels[entry]], self.names[entry])

    def read(self, entry: int) -> bytes:
        """The bytes of the file."""
        try:
            with open(self.name(entry), "rb") as file:
                return file.read()
        except OSError as error:
            raise BadImage(f"cannot be read: {error.strerror or error}") from None
