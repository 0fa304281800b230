"""One writer at a time: a lock that ends with its process, and what stands in for it where a file system has none."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import time
from pathlib import Path
from typing import IO, Any, Self

from batchscale.errors import FolderError
from batchscale.records.files import cannot_write, parse_json
from batchscale.system.disk import LACKING
from batchscale.system.notes import note

_LOCK, _HELD = ".lock", ".lock.held"
LOCK_FILES = (_LOCK, _HELD)
_HELD_BY_ANOTHER = frozenset({errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES})
_NO_LOCKS = (LACKING | {errno.ENOLCK}) - _HELD_BY_ANOTHER
_LOOKS = 3  # at the lock's file; a bound, should a file system give one file several numbers


class RunLock:
    """An exclusive lock on a run's folder, gone with the process that holds it.

    Where the file system has no locks, a file that says who holds it (``HeldFile``).

    Args:
        folder: exists.
        wait_seconds: how long to wait for another holder.
        writer: what holds it: a run or a study.

    Raises:
        FolderError: another process holds it (names host and process), or the folder cannot be written.
    """

    def __init__(self, folder: Path, wait_seconds: float = 0.0, writer: str = "run") -> None:
        self._folder, self._held = folder, HeldFile(folder / _HELD)
        deadline = time.monotonic() + wait_seconds
        try:
            self._file: IO[str] | None = self._open()
        except OSError as error:
            raise cannot_write(folder / _LOCK, error) from error
        try:
            while (holder := self._try()) is not None:
                if time.monotonic() >= deadline:
                    raise FolderError(
                        f"{folder}: another {writer} is writing there ({holder}); "
                        f"wait for it, or give another --out DIR"
                    )
                time.sleep(0.1)
            self._file.truncate(0)
            self._file.write(f"process {os.getpid()} on host {socket.gethostname()}")
            self._file.flush()
        except OSError as error:
            self.release()
            raise cannot_write(folder / _LOCK, error) from error
        except FolderError:
            self._file.close()
            raise

    def _open(self) -> IO[str]:
        return open(self._folder / _LOCK, "a+", encoding="utf-8")

    def _try(self) -> str | None:
        """Take it; who holds it, where that is another one."""
        for _ in range(_LOOKS):
            assert self._file is not None
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                return self._holder(self._file, error)
            if self._is_there(self._file):
                break
            self._file.close()
            self._folder.mkdir(exist_ok=True)
            self._file = self._open()
        return None

    def _holder(self, file: IO[str], error: OSError) -> str | None:
        """Who holds it, after the system's answer; None where this process has taken what stands in for it."""
        if error.errno in _HELD_BY_ANOTHER:
            file.seek(0)
            return file.read().strip() or "unknown process"
        if error.errno not in _NO_LOCKS:
            raise error
        note(f"the file system of {self._folder} has no locks ({error.strerror}): {_HELD} there stands in for one")
        return self._held.take()

    def _is_there(self, file: IO[str]) -> bool:
        """Whether the name is still this file's: ``discard`` of the holder before removes it, and its folder perhaps.

        Else a newcomer would make, and lock, a new file beside this one.
        """
        try:
            return os.path.samestat(os.fstat(file.fileno()), os.stat(self._folder / _LOCK))
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Let the folder go."""
        if self._file is not None:
            with contextlib.suppress(OSError):  # a full disk: what waits in its buffer was told of when written
                self._file.close()
            self._file = None
            self._held.release()

    def discard(self) -> None:
        """Leave no trace of the lock, which ends with ``release()``: until then the folder, too, may be removed."""
        if self._file is not None:
            (self._folder / _LOCK).unlink(missing_ok=True)
            self._held.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class HeldFile:
    """A file that exists while a process holds it, and names that process; one of a dead process is taken over.

    That the holder is dead can be told where it lived in this boot of this machine, among processes that are seen here.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._taken = path, False

    def take(self) -> str | None:
        """Make the file; who holds it, and how to remove it, where it cannot be taken over.

        Raises:
            OSError: it cannot be made.
        """
        for _ in range(2):
            try:
                handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
            except FileExistsError:
                if (holder := self._living()) is not None:
                    return holder
                continue
            self._taken = True  # before it is written, so that release() removes one that could not be
            with open(handle, "w", encoding="utf-8") as file:
                json.dump(_identity(), file)
            return None
        return "a process that has just begun"

    def _living(self) -> str | None:
        """Who holds it; None where that one is dead, and its file is removed."""
        try:
            content = self._path.read_text(encoding="utf-8")
            holder = parse_json(content)
            if not _is_dead(holder):
                return f"process {holder['pid']} on host {holder['host']}; where that has ended, delete {self._path}"
            aside = self._path.with_name(f"{self._path.name}.{os.getpid()}.part")
            os.rename(self._path, aside)
            if aside.read_text(encoding="utf-8") != content:  # another one was quicker, and this is its new file
                os.rename(aside, self._path)
                return "another process"
            aside.unlink()
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, OverflowError):
            return f"unknown process; where that has ended, delete {self._path}"
        return None

    def release(self) -> None:
        """Remove the file."""
        if self._taken:
            self._taken = False
            with contextlib.suppress(OSError):
                self._path.unlink()


def _identity() -> dict[str, Any]:
    """Of this process, such that no other one has it."""
    pid = os.getpid()
    return {"host": socket.gethostname(), "pid": pid, "started": _started(pid), **_surroundings()}


def _surroundings() -> dict[str, str | None]:
    """The boot of this machine, and the name space of the process numbers (a container has its own)."""
    boot = names = None
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    with contextlib.suppress(OSError):
        names = os.readlink("/proc/self/ns/pid")
    return {"boot": boot, "names": names}


def _started(pid: int) -> str | None:
    """When a process began, in ticks since the boot; "ended" where it only waits for its parent; None if not seen."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return None
    return "ended" if state == "Z" else fields[18]


def _is_dead(holder: dict[str, Any]) -> bool:
    """Whether it certainly is; /proc may hide the processes of other users (hidepid)."""
    surroundings, pid = _surroundings(), int(holder["pid"])
    if None in surroundings.values() or any(holder.get(name) != value for name, value in surroundings.items()):
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # it lives, as another user's
    starts = _started(pid), holder["started"]
    return None not in starts and starts[0] != starts[1]
