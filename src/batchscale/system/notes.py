"""Notes on standard error that are worth saying once."""

from __future__ import annotations

import sys

from batchscale.words import shown

_noted: set[str] = set()


def note(line: str) -> None:
    """One line on standard error; never twice in a process."""
    if line not in _noted:
        _noted.add(line)
        print(f"note: {shown(line)}", file=sys.stderr, flush=True)
