"""Where a process is: words that tell it from others, and that it shares with those it may share memory with."""

from __future__ import annotations

import contextlib
import os
import socket
import uuid
from collections.abc import Sequence
from pathlib import Path

_IMPORTED = uuid.uuid4().hex


def this_process() -> str:
    """This process and no other, forks and reused numbers included."""
    return f"{_IMPORTED} {os.getpid()}"


def this_host() -> str:
    """What processes have in common that may share memory: the running kernel, and a space of process ids.

    Not what a launcher calls a node: two of its nodes may be one machine, and one of its nodes several containers.
    """
    words = []
    with contextlib.suppress(OSError):
        words.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip())
        words.append(os.readlink("/proc/self/ns/pid"))
    return " ".join([*words, socket.gethostname()])


def ranks_by_host(hosts: Sequence[str]) -> list[list[int]]:
    """The ranks of every host, in rank order; hosts in the order of their first ranks.

    Args:
        hosts: what ``this_host`` says on every rank.
    """
    ranks: dict[str, list[int]] = {}
    for rank, host in enumerate(hosts):
        ranks.setdefault(host, []).append(rank)
    return list(ranks.values())
