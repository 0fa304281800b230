"""A seccomp filter as old container runtimes have one, and what a process says of the system calls that it refuses."""

from __future__ import annotations

import ctypes
import errno
import platform
import struct

import pytest

_NO_NEW_PRIVILEGES, _SECCOMP, _FILTER = 38, 22, 2  # of <linux/prctl.h> and <linux/seccomp.h>
_LOAD_NUMBER, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06  # of <linux/bpf_common.h>
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
NUMBERS = {"memfd_create": 319, "pidfd_open": 434}
"""Of x86-64."""


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("lines", ctypes.c_char_p))


def refuse_calls(*names: str, error: int = errno.EPERM) -> None:
    """From here on this process, and all that it starts, are refused these system calls.

    Raises:
        OSError: a sandbox around this one allows no filter.
    """
    lines = [struct.pack("HBBI", _LOAD_NUMBER, 0, 0, 0)]
    for name in names:
        lines.append(struct.pack("HBBI", _JUMP_IF_EQUAL, 0, 1, NUMBERS[name]))
        lines.append(struct.pack("HBBI", _RETURN, 0, 0, _ERRNO | error))
    lines.append(struct.pack("HBBI", _RETURN, 0, 0, _ALLOW))
    program = _Program(len(lines), b"".join(lines))
    library = ctypes.CDLL(None, use_errno=True)
    for arguments in ((_NO_NEW_PRIVILEGES, 1, None), (_SECCOMP, _FILTER, ctypes.byref(program))):
        option, value, pointer = arguments
        if library.prctl(option, ctypes.c_ulong(value), pointer, ctypes.c_ulong(0), ctypes.c_ulong(0)):
            number = ctypes.get_errno()
            raise OSError(number, f"prctl: {errno.errorcode.get(number, number)}")


needs_filters = pytest.mark.skipif(platform.machine() != "x86_64", reason="the numbers of system calls are x86-64's")
