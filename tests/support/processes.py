"""The processes that one has started, and those that these have."""

from __future__ import annotations

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
