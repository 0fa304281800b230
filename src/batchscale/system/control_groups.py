"""The limits of the control groups that this process lies in, of versions 1 and 2, from its own group outwards."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path

_MOUNTS = ("sys/fs/cgroup", "sys/fs/cgroup/unified")  # of version 2: alone, or beside version 1
_MEMORY = {
    1: (("memory.limit_in_bytes",), "memory.usage_in_bytes"),
    2: (("memory.max", "memory.high"), "memory.current"),
}
"""By version: the limits, and what is used of them. Above memory.high nothing is killed, but all stand still."""
_FILE_CACHE = {1: ("total_inactive_file", "total_active_file"), 2: ("inactive_file", "active_file")}
"""By version: what the file caches of a group and its members hold. A memfd's pages are none: nothing drops them."""


def _groups(controller: str, root: str) -> Iterator[tuple[int, Path]]:
    """(version, folder) of each group of a controller that may limit this process: its own and all around that.

    In a container the mount often begins at the container's group while /proc names it from the machine's: folders
    that are not there hold no limit, and the walk ends at the mount, which is the container's own group then.
    """
    lines: list[str] = []
    with contextlib.suppress(OSError, ValueError):
        lines = Path(root, "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    for _, controllers, group in (line.split(":", 2) for line in lines if line.count(":") > 1):
        if controllers == "":
            mounts, version = _MOUNTS, 2
        elif controller in controllers.split(","):
            mounts, version = (f"sys/fs/cgroup/{controllers}", f"sys/fs/cgroup/{controller}"), 1
        else:
            continue
        for mount in mounts:
            for folder in _outwards(group):
                yield version, Path(root, mount, folder)


def _outwards(group: str) -> Iterator[str]:
    while group not in ("", "/"):
        yield group.strip("/")
        group = os.path.dirname(group)
    yield "."


def core_quota(root: str = "/") -> int | None:
    """The whole cores that the tightest CPU quota pays for, at least 1; None without a quota.

    Rounded down, as by Rust's ``available_parallelism``: threads beyond a quota end all of a period's time before the
    period, and then every thread of the group stands still until the next.

    Args:
        root: of the file system that is looked at.
    """
    cores: list[float] = []
    for version, folder in _groups("cpu", root):
        with contextlib.suppress(OSError, ValueError, ZeroDivisionError):  # "max" is no number: no limit
            if version == 2:
                quota, period = (int(word) for word in (folder / "cpu.max").read_text().split())
            else:
                quota, period = (_number(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
            if quota > 0:  # version 1 says -1 where there is none
                cores.append(quota / period)
    return max(math.floor(min(cores)), 1) if cores else None


def free_memory(root: str = "/") -> Iterator[int]:
    """Bytes that each memory limit still leaves, with what the group's file caches would give back.

    Args:
        root: of the file system that is looked at.
    """
    for version, folder in _groups("memory", root):
        limits, usage = _MEMORY[version]
        for limit in limits:
            with contextlib.suppress(OSError, ValueError):  # "max" is no number: no limit
                left = _number(folder / limit) - _number(folder / usage)
                yield left + _cached(folder / "memory.stat", _FILE_CACHE[version])


def _cached(statistics: Path, names: tuple[str, ...]) -> int:
    with contextlib.suppress(OSError, ValueError):
        return sum(value for name, value in numbers(statistics) if name in names)
    return 0


def _number(path: Path) -> int:
    return int(path.read_text())


def numbers(path: Path) -> list[tuple[str, int]]:
    """Lines of a name and a whole number, as the kernel writes them."""
    rows = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
    return [(row[0], int(row[1])) for row in rows if len(row) > 1 and row[1].isdigit()]
