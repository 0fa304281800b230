"""Signals as a request that the run's processes agree on; workers that die with their launcher.

SIGINT and SIGTERM; SIGHUP (a terminal that closes), unless it is ignored, as below nohup; SIGUSR1 (a cluster's word
before the limit), unless the program has a use of its own for it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
from collections.abc import Collection, Iterator
from types import FrameType, TracebackType
from typing import Self

from batchscale.system.early import release
from batchscale.system.launcher import is_worker

RUNS_AT_ONCE = "BATCHSCALE_RUNS_AT_ONCE"  # set for a study's runs on this machine: they share its cores
STOPS = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1})
_ALWAYS = frozenset({signal.SIGINT, signal.SIGTERM})
_PR_SET_PDEATHSIG = 1


def heard() -> list[signal.Signals]:
    """The signals that mean a stop here."""
    return [n for n in sorted(STOPS) if n in _ALWAYS or signal.getsignal(n) is signal.SIG_DFL]


def final() -> Collection[int]:
    """The signals whose second arrival acts as usual: SIGINT and SIGTERM, which a person repeats.

    None in a process that a launcher or a study watches over: what is sent to all processes of a job reaches it twice,
    and who watches over it ends it where it does not leave. SIGHUP comes twice of itself: from kernel and shell.
    """
    return () if is_worker() or RUNS_AT_ONCE in os.environ else _ALWAYS


class StopSignals:
    """Within it, a first signal to stop only sets ``received``; a second one of those in ``final()`` acts as usual."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._final = final()
        self._before: dict[int, signal._HANDLER] = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = self.received or number
        if number in self._final:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)

    def requested(self) -> bool:
        """Whether this process was asked to stop."""
        return self.received is not None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            release()
            for number in heard():
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def leaving() -> Iterator[None]:
    """Within it, a signal to stop raises SystemExit (128 + its number), so that what is half made goes; once.

    Outside the main thread, which hears no signals, nothing.
    """

    def leave(number: int, frame: FrameType | None) -> None:
        for one in previous:
            signal.signal(one, signal.SIG_IGN)  # a second one would cut the tidying up short
        raise SystemExit(128 + number)

    is_main = threading.current_thread() is threading.main_thread()
    previous = {number: signal.getsignal(number) for number in heard()} if is_main else {}
    try:
        for number in previous:
            signal.signal(number, leave)
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its launcher dies (Linux); leave at once if that has happened.

    Args:
        parent: process id of the launcher, as it was when this process was asked for.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)
