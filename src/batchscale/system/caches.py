"""Where libraries keep what they build, where this user has no home folder, no name, or may not write there."""

from __future__ import annotations

import contextlib
import getpass
import itertools
import os
import stat
from pathlib import Path

from batchscale.system.interpreter import restored
from batchscale.system.temporary import any_temporary_place

_COMPILED = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")


def places_restored() -> contextlib.AbstractContextManager[None]:
    """After it, what ``place_compiled`` has set in it is no longer set: the process may be a user's own."""
    return restored(*_COMPILED)


def place_compiled() -> None:
    """Before the first optimizer: with that, torch's compiler is imported, and makes its folder whatever is compiled.

    It lies among the temporary ones, under the user's name, which older torch must have; Triton's in the home folder.

    Raises:
        UsageError: no folder for temporary files can be written, and the user has set no other.
    """
    compiler, triton = _COMPILED
    if not os.environ.get(compiler):
        any_temporary_place()
        if not _has_name():
            _set(compiler, "inductor")
    if not _can_be_written("~/.triton"):
        _set(triton, "triton")


def place_fonts() -> None:
    """Before matplotlib is imported, which else makes a new folder each time, and a line on standard error.

    Raises:
        UsageError: it has no place, and no folder for temporary files can be written.
    """
    places = (os.environ.get("XDG_CONFIG_HOME") or "~/.config", os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    if not all(map(_can_be_written, places)):
        _set("MPLCONFIGDIR", "matplotlib")


def _has_name() -> bool:
    try:
        getpass.getuser()
    except (KeyError, OSError, ImportError):  # by Python's version: no LOGNAME, and no line in /etc/passwd
        return False
    return True


def _can_be_written(folder: str) -> bool:
    """Whether it can, or can be made."""
    path = Path(os.path.expanduser(folder))
    if not path.is_absolute():  # the user has no home
        return False
    while not os.path.lexists(path):
        path = path.parent
    return path.is_dir() and os.access(path, os.W_OK | os.X_OK)


def _set(variable: str, name: str) -> None:
    if not os.environ.get(variable):
        os.environ[variable] = str(_own_folder() / name)


def _own_folder() -> Path:
    """One of this user's among the temporary folders, the same in every process; it stays, for those to come."""
    first = Path(any_temporary_place(), f"batchscale-{os.getuid()}")
    others = (first.with_name(f"{first.name}-{number}") for number in itertools.count(2))
    return next(filter(_is_own, itertools.chain([first], others)))


def _is_own(path: Path) -> bool:
    """Whether a folder, made where it is missing, is this user's: what lies in somebody else's would be run."""
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    status = path.lstat()
    others_may_write = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not others_may_write
