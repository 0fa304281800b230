"""Temporary folders where TMPDIR is unusable, or too long for what lies in it."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator

from batchscale.errors import UsageError
from batchscale.system.notes import note

_NAMES = ("TMPDIR", "TEMP", "TMP")  # in tempfile's order
_LONGEST_FOR_SOCKETS = 48  # of a socket's 107 letters, when Python and we have added our own folders and names
_SHORT = ("/tmp", "/var/tmp", "/dev/shm")


def any_temporary_place() -> str:
    """The folder that temporary files go to.

    Raises:
        UsageError: there is none that can be written.
    """
    try:
        return tempfile.gettempdir()
    except OSError:
        name = _named()
        setting = f"{name}={os.environ[name]}" if name else "no TMPDIR"
        raise UsageError(
            f"{setting}: no folder for temporary files can be written; set TMPDIR to one that exists and has room"
        ) from None


def _named() -> str | None:
    """The variable that names a folder."""
    return next((name for name in _NAMES if os.environ.get(name)), None)


def temporary_place() -> str:
    """The folder that temporary files go to; a note where it is not the one that the user has named.

    Raises:
        UsageError: there is none that can be written.
    """
    name, place = _named(), any_temporary_place()
    if name and not _are_same(place, os.environ[name]):
        note(
            f"{name}={os.environ[name]}: {_fault(os.environ[name])}; temporary files go to {place}; set {name} to a "
            f"folder that exists and has room, or unset it"
        )
    return place


def _are_same(place: str, named: str) -> bool:
    try:
        return os.path.samefile(place, named)
    except OSError:
        return False


def _fault(folder: str) -> str:
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"room?")
    except OSError as error:
        return f"cannot be used ({error.strerror})"
    return "is passed over"


def socket_place() -> str:
    """The folder for sockets: the temporary one, or a short one where the paths in that would be too long.

    Raises:
        UsageError: the temporary one is too long, and there is no short one that can be written.
    """
    place = temporary_place()
    if len(os.fsencode(place)) < _LONGEST_FOR_SOCKETS:
        return place
    for short in _SHORT:
        if os.access(short, os.W_OK | os.X_OK):
            return short
    raise UsageError(
        f"TMPDIR={place}: has {len(os.fsencode(place))} letters, too many for the path of a socket; set it to a folder "
        f"of fewer than {_LONGEST_FOR_SOCKETS}"
    )


def temporary_folder(prefix: str, place: str | None = None) -> tempfile.TemporaryDirectory[str]:
    """A new folder that goes with its ``with``.

    Args:
        prefix: of its name.
        place: where; None for ``temporary_place()``.
    """
    try:
        return tempfile.TemporaryDirectory(prefix=prefix, dir=place or temporary_place())
    except OSError as error:
        raise UsageError(f"TMPDIR={place or tempfile.gettempdir()}: cannot be used ({error.strerror}); set it to a "
                         f"folder that exists and has room") from None  # fmt: skip


@contextlib.contextmanager
def short_paths() -> Iterator[None]:
    """Within it, Python puts its sockets into ``socket_place()``."""
    previous = tempfile.tempdir
    tempfile.tempdir = socket_place()
    try:
        yield
    finally:
        tempfile.tempdir = previous
