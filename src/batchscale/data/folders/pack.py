"""Writing the packed form: every image read, checked, kept as it is or made smaller, then laid end to end.

Files are written aside, synced, renamed; the index last, so that a part is there whole or not at all.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from batchscale.data.folders.entries import Entries
from batchscale.data.folders.jpeg import BadImage, decode_whole
from batchscale.data.folders.packed import CHUNK_BYTES, MAGIC, index_of
from batchscale.data.readings import LabelsAre
from batchscale.errors import DataError
from batchscale.system.disk import refusal, replace, sync, sync_folder

_ALIGN_BYTES = 64
_AT_ONCE = 256  # images in memory while packing


@dataclass(frozen=True)
class Smaller:
    """Make images smaller: short side to so many pixels (bilinear, antialiased), as JPEG of this quality.

    An image whose short side is no longer than that keeps its bytes.
    """

    short_side: int
    quality: int = 90


@dataclass
class _Written:
    """What has been written so far."""

    entries: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    checksums: list[int] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)


def _converted(data: bytes, smaller: Smaller | None) -> bytes:
    """The bytes to keep of one image.

    Raises:
        BadImage: it cannot be read.
    """
    pixels = decode_whole(data)  # also of what keeps its bytes: training is to meet no unreadable image
    height, width = pixels.shape[:2]
    short = min(height, width)
    if smaller is None or short <= smaller.short_side:
        return data
    size = (round(width * smaller.short_side / short), round(height * smaller.short_side / short))
    stream = io.BytesIO()
    Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR).save(stream, "JPEG", quality=smaller.quality)
    return stream.getvalue()


def _packed(entries: Entries, entry: int, smaller: Smaller | None) -> bytes | BadImage:
    try:
        return _converted(entries.read(entry), smaller)
    except BadImage as error:
        return error


def _write_images(path: Path, entries: Entries, smaller: Smaller | None, skip_bad: bool, threads: int) -> _Written:
    written = _Written()
    with open(path, "wb") as file, ThreadPoolExecutor(threads, "batchscale-pack") as pool:
        for first in range(0, len(entries), _AT_ONCE):
            numbers = range(first, min(first + _AT_ONCE, len(entries)))
            for entry, data in zip(numbers, pool.map(lambda e: _packed(entries, e, smaller), numbers), strict=True):
                if isinstance(data, BadImage):
                    if not skip_bad:
                        raise DataError(
                            f"{entries.shown(entry)}: {data}: must be a readable image; repair or remove it "
                            f"(`batchscale data check` names all such files), or leave such files out with --skip-bad"
                        )
                    written.left_out[entries.shown(entry)] = str(data)
                    continue
                file.write(data)
                written.entries.append(entry)
                written.lengths.append(len(data))
                written.checksums.append(zlib.crc32(data))
        file.flush()
        sync(file.fileno())  # before it has its name: a loss of power must not leave the name without the content
    return written


def _chunk_hashes(path: Path) -> list[str]:
    with open(path, "rb") as file:
        return [hashlib.sha256(chunk).hexdigest() for chunk in iter(lambda: file.read(CHUNK_BYTES), b"")]


def _index(header: dict[str, Any], arrays: dict[str, npt.NDArray[Any]]) -> bytes:
    """The index as bytes: the arrays' places hang on the length of the JSON that holds them, so it is padded."""
    room = 4096 + len(json.dumps(header).encode())  # 4096: for the five places, each two numbers of 19 digits at most
    room += -(len(MAGIC) + 8 + room) % _ALIGN_BYTES
    offset, places, blocks = len(MAGIC) + 8 + room, {}, []
    for name, array in arrays.items():
        places[name] = [offset, offset + array.nbytes]
        padding = -array.nbytes % _ALIGN_BYTES
        blocks.append(array.tobytes() + bytes(padding))
        offset += array.nbytes + padding
    text = json.dumps({**header, "arrays": places}).encode().ljust(room)
    content = MAGIC + room.to_bytes(8, "little") + text + b"".join(blocks)
    return content + hashlib.sha256(content).digest()


def _starts(lengths: list[int]) -> npt.NDArray[np.int64]:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(np.array(lengths, np.int64))])


def write_index(path: Path, header: dict[str, Any], arrays: dict[str, npt.NDArray[Any]]) -> None:
    """Write an index aside, sync it, rename it.

    Args:
        path: PART.index.
        header: classes, sha256 and what else is to be known.
        arrays: starts, labels, crc32, name_starts, names.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(aside, "wb") as file:
            file.write(_index(header, arrays))
            file.flush()
            sync(file.fileno())
        replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
    sync_folder(path.parent)


def pack(
    entries: Entries,
    part: str,
    into: Path,
    smaller: Smaller | None,
    skip_bad: bool,
    threads: int,
    labels: LabelsAre | None = None,
) -> dict[str, str]:
    """Write one part of a set in packed form.

    Args:
        entries: its images.
        part: "train" or "val".
        into: a folder that holds no such part yet.
        smaller: None to keep every image's bytes.
        skip_bad: leave out what cannot be read.
        threads: that read and convert.
        labels: how the user said to read the labels.

    Returns:
        What was left out: name -> reason.

    Raises:
        DataError: an image cannot be read (and skip_bad is not set), or the folder cannot be written.
    """
    index = index_of(into, part)
    images = index.with_suffix(".images")
    aside = images.with_name(f".{images.name}.{os.getpid()}.part")
    try:
        written = _write_images(aside, entries, smaller, skip_bad, threads)
        sha256 = _chunk_hashes(aside)
        replace(aside, images)  # before the index: where that is, the images are
        names = [os.fsencode(Path(entries.name(e)).name) for e in written.entries]
        header = {
            "classes": entries.classes,
            "sha256": sha256,
            "left_out": written.left_out,
            "smaller": vars(smaller) if smaller else None,
            "labels": labels,
        }
        arrays: dict[str, npt.NDArray[Any]] = {
            "starts": _starts(written.lengths),
            "labels": entries.labels[written.entries],
            "crc32": np.array(written.checksums, np.uint32),
            "name_starts": _starts([len(name) for name in names]),
            "names": np.frombuffer(b"".join(names), np.uint8),
        }
        write_index(index, header, arrays)
    except OSError as error:
        raise DataError(f"{into}: cannot be written {refusal(error)}, or give another folder with --out DIR") from None
    finally:
        aside.unlink(missing_ok=True)
    return written.left_out
