"""What a container may be like, made of namespaces: no file system to write to, no user's name, little /dev/shm.

    python tests/support/container.py '{"writable": [...], ...}' COMMAND ...

runs a command there, inside ``unshare``; ``inside`` below calls it so.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

USER = 12345
"""Has no line in /etc/passwd."""

_MOUNT_SETATTR = 442  # the same number for all processors; Linux 5.12
_HERE, _RECURSIVE, _READ_ONLY = -100, 0x8000, 1


def inside(
    *command: str,
    writable: Sequence[Path] = (),
    shm_bytes: int | None = None,
    memory_files_sealed: bool = False,
    environment: dict[str, str] | None = None,
    working_folder: Path = Path("/"),
) -> subprocess.CompletedProcess[str]:
    """A Python command where all is read-only but these folders, as a user without a name, HOME or TMPDIR.

    Args:
        command: the interpreter's words.
        writable: folders.
        shm_bytes: size of /dev/shm; None for one that cannot be written.
        memory_files_sealed: vm.memfd_noexec is 2.
        environment: variables that are set beside PATH.
        working_folder: where it runs.

    Returns:
        How it ended; its output.
    """
    order = {"writable": [str(f) for f in writable], "shm_bytes": shm_bytes, "sealed": memory_files_sealed}
    name = ["unshare", "--user", f"--map-user={USER}", f"--map-group={USER}"]
    variables = [f"{key}={value}" for key, value in {"PATH": os.environ["PATH"], **(environment or {})}.items()]
    return subprocess.run(
        [*_unshare(memory_files_sealed), sys.executable, __file__, json.dumps(order), *name, "env", "-i", *variables,
         sys.executable, *command],
        capture_output=True, text=True, timeout=600, cwd=working_folder, check=False,
    )  # fmt: skip


def _unshare(with_processes: bool = False) -> list[str]:
    processes = ["--pid", "--fork", "--mount-proc"] if with_processes else []
    return ["unshare", "--user", "--map-root-user", "--mount", *processes]


def lacking() -> str:
    """The right, or the program, that this machine lacks for ``inside``; "" where it lacks none."""
    if platform.system() != "Linux" or shutil.which("unshare") is None:
        return "needs Linux and unshare"
    try:
        inside("-c", "").check_returncode()
    except (OSError, subprocess.SubprocessError) as error:
        return f"no user and mount namespaces can be made here: {getattr(error, 'stderr', '') or error}"
    return ""


def _set_read_only(path: str, read_only: bool, recursive: bool = False) -> None:
    attributes = (ctypes.c_uint64 * 4)(_READ_ONLY * read_only, _READ_ONLY * (not read_only), 0, 0)
    library = ctypes.CDLL(None, use_errno=True)
    words = (_HERE, path.encode(), _RECURSIVE * recursive, ctypes.byref(attributes), ctypes.c_size_t(32))
    if library.syscall(_MOUNT_SETATTR, *words):
        raise OSError(ctypes.get_errno(), f"mount_setattr {path}: {os.strerror(ctypes.get_errno())}")


def _mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True)


def _enter(writable: list[str], shm_bytes: int | None, sealed: bool) -> None:
    if sealed:
        Path("/proc/sys/vm/memfd_noexec").write_text("2")
    for folder in writable:
        _mount("--bind", folder, folder)
    if shm_bytes is not None:
        _mount("-t", "tmpfs", "-o", f"size={shm_bytes},mode=1777", "tmpfs", "/dev/shm")
    _set_read_only("/", True, recursive=True)
    # In /proc, unshare is to write who its user is.
    for folder in ["/proc", *writable, *(["/dev/shm"] if shm_bytes is not None else [])]:
        _set_read_only(folder, False)


if __name__ == "__main__":
    _enter(**json.loads(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])
