"""Files and folders where the file system, or a sandbox, lacks a call; why a path cannot be written, in words."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import shutil
from pathlib import Path

from batchscale.system.notes import note

LACKING = frozenset({errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL, errno.EPERM})
"""Answers of a call that does not exist here (network and FUSE file systems; seccomp filters say EPERM)."""

_NOT_OVER = LACKING | {errno.EEXIST, errno.EACCES, errno.EBUSY}
_NO_FOLDER_SYNC = LACKING | {errno.EBADF, errno.EISDIR, errno.EACCES}

_RULES = {
    errno.ENOSPC: "the disk must have room; free some",
    errno.EDQUOT: "your quota there is used up; free some of it",
    errno.EFBIG: "a limit on the size of files is reached; raise it (ulimit -f)",
    errno.EROFS: "the file system is mounted read-only; have it mounted for writing",
    errno.EACCES: "you must be allowed to write there; change its permissions",
    errno.EPERM: "you must be allowed to write there; change its permissions",
    errno.ENAMETOOLONG: "a name in it is too long for the file system; shorten it",
    errno.EIO: "the disk, or the server that it is on, fails; look into the system's log",
}


def refusal(error: OSError, otherwise: str = "must be writable and have room; free some") -> str:
    """Why a path cannot be written, and the first way out: "(No space left on device): the disk must ...".

    Args:
        error: of the system.
        otherwise: rule and way out of an error that is none of the usual ones.
    """
    return f"({error.strerror or error}): {_RULES.get(error.errno or 0, otherwise)}"


def sync(handle: int) -> None:
    """Have a file's content last through a loss of power, where its file system can promise that.

    Raises:
        OSError: it could not be written.
    """
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in LACKING:
            raise
        note(f"the file system does not sync files ({error.strerror}): a loss of power may cost the last ones written")


def sync_folder(folder: Path) -> None:
    """Make the names in this folder last, where its file system can promise that.

    Raises:
        OSError: it could not be written.
    """
    handle = -1
    try:
        handle = os.open(folder, os.O_RDONLY)
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
        note(f"the file system does not sync folders ({error.strerror}): a loss of power may cost the last files named")
    finally:
        if handle >= 0:
            os.close(handle)


def replace(aside: Path, path: Path) -> None:
    """Put a file in the place of another, at once; by two renames where the file system renames over none.

    Raises:
        OSError: neither is possible; the old file is as it was.
    """
    try:
        os.replace(aside, path)
    except OSError as error:
        if error.errno not in _NOT_OVER or not path.exists():
            raise
        old = exchange(aside, path)
        with contextlib.suppress(OSError):  # the new one is in its place: that is what was asked for
            old.unlink()
        note(
            f"the file system does not rename over a file ({error.strerror}): a command killed in that moment leaves "
            f"the old one beside it as .NAME.PID.before.part; then rename it back"
        )


def exchange(aside: Path, path: Path) -> Path:
    """Put a file or folder in the place of another by two renames; returns where the old one lies now.

    Raises:
        OSError: it cannot come there; the old one is as it was.
    """
    old = path.with_name(f".{path.name}.{os.getpid()}.before.part")
    os.rename(path, old)
    try:
        os.rename(aside, path)
    except OSError:
        os.rename(old, path)
        raise
    return old


def lay(source: Path, target: Path, link: str) -> None:
    """The same file under another name: a link, or a copy where the file system has no such links.

    Args:
        source: is there.
        target: is not.
        link: "hard" or "symbolic".

    Raises:
        OSError: it cannot be copied either.
    """
    try:
        (os.link if link == "hard" else os.symlink)(source, target)
    except OSError as error:
        if error.errno not in LACKING | {errno.EMLINK, errno.EXDEV}:
            raise
        shutil.copyfile(source, target)


def new_folder(path: Path) -> Path:
    """Make a folder that nobody else has made: this one, else with -2, -3, ... behind its name.

    Raises:
        OSError: it cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        candidate = path if number == 1 else path.with_name(f"{path.name}-{number}")
        with contextlib.suppress(FileExistsError):
            candidate.mkdir()
            return candidate
    raise AssertionError("unreachable")
