"""Where libraries keep what they build, where this user has no home folder, no name, or may not write there."""

from __future__ import annotations

import contextlib
import getpass
import os
import stat
import tempfile
from pathlib import Path

from batchscale.system.temporary import any_temporary_place


def place_compiled() -> None:
    """Before the first optimizer: with that, torch's compiler is imported, and makes its folder whatever is compiled.

    It lies among the temporary ones, under the user's name, which older torch must have; Triton's in the home folder.

    Raises:
        UsageError: no folder for temporary files can be written, and the user has set no other.
    """
    if not os.environ.get("TORCHINDUCTOR_CACHE_DIR"):
        any_temporary_place()
        if not _has_name():
            _set("TORCHINDUCTOR_CACHE_DIR", "inductor")
    if not _can_be_written("~/.triton"):
        _set("TRITON_CACHE_DIR", "triton")


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
    """One of this user's among the temporary folders, the same in every process."""
    path = Path(any_temporary_place(), f"batchscale-{os.getuid()}")
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    status = path.lstat()
    others_may_write = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not others_may_write:
        return path
    return Path(tempfile.mkdtemp(prefix="batchscale-"))  # that is somebody else's, and what lies there is run
