"""Files that are either the old or the new, never half: written aside, synced, renamed."""

from __future__ import annotations

import contextlib
import json
import math
import os
from pathlib import Path
from typing import Any, TypeGuard

from batchscale.errors import FolderError
from batchscale.system.disk import refusal, replace, sync, sync_folder

_MOST_NESTED = 64
_LAST_BYTES = 1 << 16  # of a file of lines: many lines, of which only the first may be cut


_ANOTHER_OUT = "or give another --out DIR"


def write_whole(path: Path, content: bytes, way_out: str = _ANOTHER_OUT) -> None:
    """Replace a file by new content, or leave it as it was.

    Args:
        path: of the file.
        content: all of it.
        way_out: for the message, where it cannot be written.

    Raises:
        FolderError: the folder is read-only, full, or a size limit is reached.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(aside, "wb") as file:
            file.write(content)
            file.flush()
            sync(file.fileno())
        replace(aside, path)
        sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):  # the first error is the one to tell
            aside.unlink(missing_ok=True)
        raise cannot_write(path, error, way_out) from error


def cannot_write(path: Path, error: OSError, way_out: str = _ANOTHER_OUT) -> FolderError:
    """The one line for a folder that cannot be written."""
    return FolderError(f"{path}: cannot be written {refusal(error)}, {way_out}")


def cannot_read(path: Path | str, error: OSError, otherwise: str) -> FolderError:
    """The one line for a file that is there and cannot be read: only where nobody forbids it, it may be made anew."""
    way_out = "change its permissions" if isinstance(error, PermissionError) else otherwise
    return FolderError(f"{path}: cannot be read ({error.strerror or error}); {way_out}")


def write_json(path: Path, content: Any) -> None:
    """One JSON document, whole or not at all; not-a-number becomes null."""
    write_whole(path, (json.dumps(finite(content), indent=2) + "\n").encode())


def finite(value: Any) -> Any:
    """The value with every float that JSON cannot hold replaced by None."""
    if isinstance(value, dict):
        return {k: finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value


def is_number(value: object) -> TypeGuard[float]:
    """Whether an entry of a JSON document is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def parse_json(text: str | bytes) -> Any:
    """A JSON document.

    Raises:
        ValueError: it is none, or nested more deeply than anything that reads it could follow.
    """
    try:
        value = json.loads(text)
    except RecursionError:
        value = None
    else:
        if is_shallow(value):
            return value
    raise ValueError(f"nested more than {_MOST_NESTED} deep")


def is_shallow(value: Any, levels: int = _MOST_NESTED) -> bool:
    """Whether mappings and lists are nested no deeper than so many levels."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels > 0 and all(is_shallow(part, levels - 1) for part in inner if isinstance(part, dict | list))


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The JSON lines of a file that are whole (a last line cut by a kill is left out); [] where there is none."""
    return [value for line in _split(path) if (value := _whole(line)) is not None]


def last_line(path: Path) -> dict[str, Any] | None:
    """The last JSON line that is whole, read from the end of the file alone; None where there is none."""
    try:
        with open(path, "rb") as file:
            file.seek(max(file.seek(0, os.SEEK_END) - _LAST_BYTES, 0))
            lines = file.read().split(b"\n")
    except OSError:
        return None
    return next((value for line in reversed(lines) if (value := _whole(line)) is not None), None)


def damaged_lines(path: Path) -> tuple[list[int], bool]:
    """What ``read_lines`` leaves out: the numbers of damaged lines from 1 on, whether the end is cut in mid-line."""
    *ended, last = _split(path) or [b""]
    damaged = [number for number, line in enumerate(ended, 1) if line.strip() and _whole(line) is None]
    return damaged, bool(last.strip()) and _whole(last) is None


def _split(path: Path) -> list[bytes]:
    return path.read_bytes().split(b"\n") if path.is_file() else []


def _whole(line: bytes) -> dict[str, Any] | None:
    try:
        value = parse_json(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
