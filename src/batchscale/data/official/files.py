"""Official files: names, lengths, published checksums, and reading that trusts none of them before checking."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from batchscale.errors import DataError

_MOST_BYTES = 1 << 28


@dataclass(frozen=True)
class OfficialFile:
    """A published file.

    Args:
        name: its name, as published.
        md5: its published MD5.
        num_bytes: its length; where that is not known, more than it can have.
        shape: of an idx file: what its header says.
        unpacked_sha256: of an idx .gz: SHA256 of what it unpacks to (torchvision leaves that on disk).
    """

    name: str
    md5: str
    num_bytes: int = _MOST_BYTES
    shape: tuple[int, ...] = ()
    unpacked_sha256: str = ""

    @property
    def unpacked_bytes(self) -> int:
        """Length of an idx file, unpacked: 4 + 4 dimensions + values."""
        return 4 + 4 * len(self.shape) + math.prod(self.shape)

    def read(self, path: Path, owners: Mapping[str, str] = MappingProxyType({})) -> bytes:
        """The bytes of the file at path, checked against MD5 (as published) or SHA256 (unpacked).

        Args:
            path: the file; unpacked where it has another name than the official one.
            owners: checksum -> data set, to tell whose file lies there instead.

        Raises:
            DataError: unreadable, or another checksum.
        """
        packed = path.name == self.name
        kind, expected = ("MD5", self.md5) if packed else ("SHA256", self.unpacked_sha256)
        num_bytes = self.num_bytes if packed else self.unpacked_bytes
        hasher = hashlib.md5(usedforsecurity=False) if packed else hashlib.sha256()
        length = 0
        try:
            with open(path, "rb") as stream:
                data = chunk = stream.read(num_bytes)
                while chunk:
                    hasher.update(chunk)
                    length += len(chunk)
                    chunk = stream.read(1 << 20)
        except OSError as error:
            raise DataError(
                f"{path}: cannot be read ({error.strerror or error}): must be a readable file; change its permissions"
            ) from None
        checksum = hasher.hexdigest()
        if checksum != expected:
            owner = owners.get(checksum)
            whose = f", a file of {owner}" if owner else ""
            way_out = (
                "name the folder of the right data set with --data DIR or BATCHSCALE_DATA=DIR"
                if owner
                else "move the file away and fetch it again (`batchscale data prepare NAME --data DIR`)"
            )
            wanted = f" ({num_bytes} bytes)" if num_bytes != _MOST_BYTES else ""
            raise DataError(
                f"{path}: {kind} is {checksum} ({length} bytes{whose}): must be {expected}{wanted}; {way_out}"
            )
        return data


def listing(files: Sequence[OfficialFile]) -> str:
    """Files with their published checksums, for a message."""
    return ", ".join(f"{file.name} (MD5 {file.md5})" for file in files)


def existing(folder: Path, file: OfficialFile) -> Path | None:
    """Where the file lies in the folder: as published, else unpacked, else None."""
    names = [file.name, file.name.removesuffix(".gz")] if file.unpacked_sha256 else [file.name]
    return next((folder / name for name in names if os.path.isfile(folder / name)), None)
