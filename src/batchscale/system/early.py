"""Signals to stop that come while a command is still loading: it ends with a line, before it has begun anything.

A cluster's scripts take the exit code of SIGUSR1 for a stop; without this one the process would end without a word.
"""

from __future__ import annotations

import os
import signal
from types import FrameType

_NUMBERS = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)  # SIGINT raises KeyboardInterrupt as it is


def leave_early() -> None:
    """From now on, until ``release``, they end this process; those that are ignored, as below nohup, stay so."""
    for number in _NUMBERS:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _leave)


def release() -> None:
    """Their usual actions again: what follows has handlers of its own, or needs none."""
    for number in _NUMBERS:
        if signal.getsignal(number) is _leave:
            signal.signal(number, signal.SIG_DFL)


def _leave(number: int, frame: FrameType | None) -> None:
    """End at once: an exception might come out of a library that is half loaded, and takes it for something else."""
    if _speaks():
        line = f"batchscale: stopped by {signal.Signals(number).name} before the run had begun\n"
        os.write(2, line.encode())
    os._exit(128 + number)


def _speaks() -> bool:
    """Whether this process is the one of its world that says it."""
    from batchscale.errors import UsageError
    from batchscale.system.launcher import LAUNCHER, world_told

    try:
        return LAUNCHER not in os.environ and world_told()[0] == 0
    except UsageError:
        return True
