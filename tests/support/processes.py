"""The processes that one has started, and those that these have."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from batchscale.data.folders import decoding


def _parents() -> dict[int, int]:
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if words[0] != "Z":
            parents[int(folder.name)] = int(words[1])
    return parents


def descendants(process: int) -> set[int]:
    """Living ones, of any depth."""
    parents, found = _parents(), {process}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {process}


def living_with(name: str, value: str) -> dict[int, dict[str, str]]:
    """Every living process with this variable, and its environment."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            raw = (entry / "environ").read_bytes().decode(errors="replace")
            variables = dict(v.split("=", 1) for v in raw.split("\0") if "=" in v)
            state = (entry / "stat").read_text().rsplit(")", 1)[1].split()[0]
            if variables.get(name) == value and state != "Z":
                found[int(entry.name)] = variables
    return found


def decoders(process: int | None = None) -> set[int]:
    """Those of a process (None: this one) that decode images; not the one that has forked them."""

    def decodes(number: int) -> bool:
        try:
            return decoding.__name__.encode() in Path(f"/proc/{number}/cmdline").read_bytes()
        except OSError:
            return False

    all_of_them = {number for number in descendants(process or os.getpid()) if decodes(number)}
    return {number for number in all_of_them if _parents().get(number) in all_of_them}


def soon(condition, seconds: float = 60.0) -> bool:
    """Whether something holds, at the latest after so long."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True
