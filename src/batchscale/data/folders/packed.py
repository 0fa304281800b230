"""The packed form of an image set: the images end to end in one file, and a small index that is memory-mapped.

PART.images   the bytes of every image, in file order
PART.index    one line, 8 bytes (length), JSON, then arrays at multiples of 64 bytes: starts int64 (N + 1), labels
              int64 (N), crc32 uint32 (N), name_starts int64 (N + 1), names uint8; last 32 bytes: SHA256 of all before

The JSON holds the classes, the arrays' places, and the SHA256 of every 64 MiB of PART.images. Opening checks the index
whole and the length of the images; reading checks an image's CRC-32; `batchscale data check` every SHA256.

Cost: 28 bytes an image in the index, and its name; 0.014 ms to check an image of 60 kB.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import weakref
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from batchscale.data.contents import digest
from batchscale.data.folders.entries import Entries, Names
from batchscale.data.folders.jpeg import BadImage
from batchscale.data.official.faults import Tell, stop
from batchscale.data.passed_over import PassedOver
from batchscale.data.readings import LabelsAre
from batchscale.errors import DataError
from batchscale.system.disk import LACKING

MAGIC = b"batchscale packed images 1\n"
CHUNK_BYTES = 1 << 26

_AGAIN = "prepare the packed form again (`batchscale data prepare`), or copy it again"


def index_of(folder: Path, part: str) -> Path:
    """The index of a part, "train" or "val", of a packed set."""
    return folder / f"{part}.index"


def _mapped(index: Path) -> npt.NDArray[np.uint8]:
    """An index, mapped; in memory where its file system maps no files (some FUSE ones: ENODEV)."""
    try:
        return np.memmap(index, np.uint8, "c")  # copy on write: torch warns of arrays that it may not write to
    except OSError as error:
        if error.errno not in LACKING | {errno.ENODEV}:
            raise
        return np.fromfile(index, np.uint8)


class PackedEntries(Entries):
    """The images of a packed part.

    Args:
        index: PART.index; PART.images lies beside it.

    Raises:
        DataError: truncated, altered, of another form, or unreadable.
    """

    def __init__(self, index: Path) -> None:
        self.index, self.images = index, index.with_suffix(".images")
        try:
            self._mapped = _mapped(index)
            self._file = os.open(self.images, os.O_RDONLY)
            weakref.finalize(self, os.close, self._file)
            images_bytes = os.fstat(self._file).st_size
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "empty"  # numpy maps no empty file
            raise DataError(f"{index}: cannot be opened with its .images ({reason}): must be whole; {_AGAIN}") from None
        self.header, self.passed_over = self._read_header(), PassedOver()
        self.classes = tuple(self.header["classes"])
        if smaller := self.header.get("smaller"):
            self.form = f"short side {smaller['short_side']}, JPEG quality {smaller['quality']}"
        self.starts, self.labels = self._array("starts", np.int64), self._array("labels", np.int64)
        self._checksums = self._array("crc32", np.uint32)
        self.names = Names(self._array("names", np.uint8), self._array("name_starts", np.int64))
        if images_bytes != self.starts[-1]:  # a copy that was cut short is told here, not at its last image
            raise DataError(
                f"{self.images}: has {images_bytes} bytes, its index says {self.starts[-1]}: truncated or altered; "
                f"{_AGAIN}"
            )

    def __reduce__(self) -> tuple[type[PackedEntries], tuple[Path]]:
        """Another process opens the files for itself."""
        return PackedEntries, (self.index,)

    def _read_header(self) -> dict[str, Any]:
        content, digest = self._mapped[:-32], self._mapped[-32:].tobytes()
        if content[: len(MAGIC)].tobytes() != MAGIC:  # first: a file of another kind is not told to be altered
            raise DataError(f"{self.index}: does not begin as the index of a packed set: {_AGAIN}")
        if hashlib.sha256(content.data).digest() != digest:
            raise DataError(f"{self.index}: its SHA256 is not the one at its end: truncated or altered; {_AGAIN}")
        begin = len(MAGIC) + 8
        length = int.from_bytes(content[len(MAGIC) : begin].tobytes(), "little")
        header: dict[str, Any] = json.loads(content[begin : begin + length].tobytes())
        return header

    def _array(self, name: str, dtype: type[np.generic]) -> npt.NDArray[Any]:
        first, last = self.header["arrays"][name]
        return self._mapped[first:last].view(dtype)  # no copy: arrays begin at multiples of 64 bytes

    def check_labels(self, labels: LabelsAre | None, tell: Tell = stop) -> None:
        """Tell where the user's reading of the labels is another than the one that this form was made by."""
        packed_by = self.header.get("labels")
        if labels and packed_by and labels != packed_by:
            tell(
                DataError(
                    f"data.labels={labels}: {self.index} was packed with --labels {packed_by}, and holds the labels "
                    f"that these give; leave data.labels out, or prepare the packed form again with --labels {labels}"
                )
            )

    def name(self, entry: int) -> str:
        """As if the packed file were a folder."""
        return f"{self.images}/{self.names[entry]}"

    def read(self, entry: int) -> bytes:
        """The bytes of an image, its CRC-32 checked.

        Raises:
            BadImage: it cannot be read.
            DataError: it is not what was packed.
        """
        start, stop = int(self.starts[entry]), int(self.starts[entry + 1])
        try:
            data = os.pread(self._file, stop - start, start)  # not through a map: a page fault would hold the GIL
        except OSError as error:
            raise BadImage(f"cannot be read: {error.strerror or error}") from None
        if zlib.crc32(data) != self._checksums[entry]:
            raise DataError(f"{self.name(entry)}: altered since it was packed (its CRC-32 is another); {_AGAIN}")
        return data

    def digests(self, entries: npt.NDArray[np.int64]) -> dict[str, str]:
        """Of the files' names, and of the lengths and CRC-32s that the index holds."""
        lengths = self.starts[entries + 1] - self.starts[entries]
        return {**super().digests(entries), "bytes": digest([lengths, self._checksums[entries]])}

    def verify(self, tell: Tell = stop) -> None:
        """Check the SHA256 of every chunk of the images; tell takes each that is another, by its first byte."""
        with open(self.images, "rb") as file:
            for number, expected in enumerate(self.header["sha256"]):
                if hashlib.sha256(file.read(CHUNK_BYTES)).hexdigest() != expected:
                    tell(
                        DataError(
                            f"{self.images}: bytes {number * CHUNK_BYTES} and on have another SHA256 than when they "
                            f"were packed: altered; {_AGAIN}"
                        )
                    )
