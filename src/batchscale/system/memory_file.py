"""Files that lie in memory alone: without a name in any file system, gone with the last process that holds them."""

from __future__ import annotations

import errno
import os

_NOEXEC_SEAL = 0x8
"""MFD_NOEXEC_SEAL, of Linux 6.3: never to be run. Where vm.memfd_noexec is 2, early ones make no files without it."""


def memory_file(name: str) -> int:
    """The handle of a new empty one, closed when another program is run.

    Args:
        name: for /proc alone; need not be unique.

    Raises:
        OSError: the system has none, or a sandbox refuses them.
    """
    if not hasattr(os, "memfd_create"):
        raise OSError(errno.ENOSYS, "no memfd")
    try:
        return os.memfd_create(name, os.MFD_CLOEXEC | _NOEXEC_SEAL)
    except OSError as error:
        if error.errno != errno.EINVAL:  # of a kernel that does not know the flag
            raise
    return os.memfd_create(name, os.MFD_CLOEXEC)


def path_of(handle: int) -> str:
    """Where other processes of this machine and this user can open it, as long as this one holds it."""
    return f"/proc/{os.getpid()}/fd/{handle}"
