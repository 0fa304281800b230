"""Reader of idx files, gzipped or unpacked: the form of MNIST and Fashion-MNIST.

An idx file is 00 00, a type byte, the number of dimensions, each dimension as a big-endian uint32, the values.

Source: LeCun, Cortes, Burges, "The MNIST database of handwritten digits", section "file formats".
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from batchscale.errors import DataError

MAX_BYTES = 1 << 28  # of values; over five times the largest official file, so a header cannot ask for all memory

_UNSIGNED_BYTE = 0x08
_MAX_DIMENSIONS = 4
_AGAIN = "fetch the file again (`batchscale data prepare NAME --data DIR`)"


def read_idx(path: Path, shape: tuple[int, ...] | None = None) -> torch.Tensor:
    """The values of an idx file of unsigned bytes.

    Args:
        path: the file, gzipped or not (told by its first bytes).
        shape: what the header must say; None takes any header up to MAX_BYTES values.

    Returns:
        uint8, the shape that the header gives.

    Raises:
        DataError: unreadable, damaged gzip, wrong magic, type or dimensions, too few or too many bytes.
    """
    try:
        with open(path, "rb") as stream:
            return decode_idx(stream, str(path), shape)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror or error}): must be a readable file; {_AGAIN}"
        ) from None


def decode_idx(stream: BinaryIO, name: str, shape: tuple[int, ...] | None = None) -> torch.Tensor:
    """The values in an open idx file; as :func:`read_idx`, with a name for messages.

    Reads at most the header, the values it announces and one byte more, whatever a gzip stream would unpack to.
    """
    zipped = stream.read(2) == b"\x1f\x8b"
    stream.seek(0)
    if not zipped:
        return _decode(stream, name, shape)
    try:
        with gzip.GzipFile(fileobj=stream, mode="rb") as unpacked:
            return _decode(unpacked, name, shape)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{name}: damaged gzip ({error}): must unpack to its end; {_AGAIN}") from None


def _decode(stream: BinaryIO | gzip.GzipFile, name: str, shape: tuple[int, ...] | None) -> torch.Tensor:
    dims = _header(stream, name)
    if shape is not None and dims != shape:
        raise DataError(f"{name}: its header says {dims}: must be {shape}; {_AGAIN}")
    num_bytes = math.prod(dims)
    if not 1 <= num_bytes <= MAX_BYTES:
        raise DataError(f"{name}: its header says {dims}, {num_bytes} values: must be 1 to {MAX_BYTES}; {_AGAIN}")
    values = np.empty(num_bytes, dtype=np.uint8)
    filled = 0
    while filled < num_bytes and (got := stream.readinto(values[filled:].data)):  # type: ignore[union-attr]
        filled += got
    if filled < num_bytes:
        raise DataError(f"{name}: ends after {filled} of the {num_bytes} values of its header {dims}; {_AGAIN}")
    # At the end of a gzip stream this read also makes gzip check the checksum and the length of the content.
    if stream.read(1):
        raise DataError(f"{name}: goes on after the {num_bytes} values of its header {dims}: must end there; {_AGAIN}")
    return torch.from_numpy(values).reshape(dims)


def _header(stream: BinaryIO | gzip.GzipFile, name: str) -> tuple[int, ...]:
    magic = stream.read(4)
    if len(magic) == 4:
        if magic[:3] != bytes([0, 0, _UNSIGNED_BYTE]) or not 1 <= magic[3] <= _MAX_DIMENSIONS:
            raise DataError(
                f"{name}: begins with the bytes {magic.hex(' ')}: must be 00 00 08 and 01 to 04 "
                f"(an idx file of unsigned bytes); {_AGAIN}"
            )
        sizes = stream.read(4 * magic[3])
        if len(sizes) == 4 * magic[3]:
            return struct.unpack(f">{magic[3]}I", sizes)
    raise DataError(f"{name}: ends inside its header: must be an idx file; {_AGAIN}")
