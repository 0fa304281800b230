"""The C library's allocator, for training on processors.

glibc maps memory of 32 MiB and more anew for every tensor, smaller ones until it has learnt better, and gives the end
of its heap back whenever that is free. So a step, which asks for the same sizes again and again, gets pages that the
kernel must fill with zeros each time.

Source: man mallopt(3); Linux `getrusage`, ru_minflt, counts such pages.
"""

from __future__ import annotations

import ctypes
import os
import platform

# glibc's malloc.h
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
_MOST_BYTES_FREE = (1 << 31) - 1  # an int: more than this at the end of the heap is still given back


def keep_freed_memory() -> bool:
    """From now on, for as long as this process lives, keep what it frees for what it asks next.

    It holds more than its highest need: a heap has gaps, and glibc reuses aligned memory, which tensors are, only once
    what is free is larger (40 MiB, asked for and freed again and again, end as eight times 40 MiB). A thread's tensors
    of more than 64 MiB, the most that its own heap holds, are still mapped anew.

    Returns:
        Whether it does: not where another allocator or C library is in use, and not where the environment says how
        glibc's is to behave (MALLOC_..., GLIBC_TUNABLES).
    """
    if platform.libc_ver()[0] != "glibc" or _told_otherwise():
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, _MOST_BYTES_FREE))


def release_freed_memory() -> None:
    """Give back to the system what this process has kept; what is asked for next lies close together again."""
    if platform.libc_ver()[0] == "glibc" and not _told_otherwise():
        ctypes.CDLL(None).malloc_trim(0)


def _told_otherwise() -> bool:
    told = any(name.startswith("MALLOC_") for name in os.environ)
    tunables, preloaded = os.environ.get("GLIBC_TUNABLES", ""), os.environ.get("LD_PRELOAD", "")
    return told or "glibc.malloc" in tunables or "malloc" in preloaded
