"""Runs as forks of one process that has imported torch: a short run pays no import. They die with the study.

Cost: one import of torch a study, in place of one a run (2 to 3 s each).
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from multiprocessing import connection
from typing import Any

from batchscale.errors import BatchscaleError
from batchscale.launch.signals import RUNS_AT_ONCE, STOPS
from batchscale.study.runner.devices import VISIBLE, DevicePool, may_use_gpu, sharing_words, visible_devices
from batchscale.study.runner.work import Work, train_task
from batchscale.system.caches import place_compiled
from batchscale.system.interpreter import variables, without_working_folder
from batchscale.system.temporary import short_paths

_CONTEXT = multiprocessing.get_context("forkserver")


def warm() -> None:
    """Begin to import torch in the process that runs are forked from; signals to stop are not for that one."""
    from multiprocessing import forkserver, resource_tracker

    place_compiled()
    _CONTEXT.set_forkserver_preload(["torch", "torch._dynamo", "batchscale.run.run"])
    with short_paths(), variables(**without_working_folder()):
        for ensure_running in (resource_tracker.ensure_running, forkserver.ensure_running):
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)  # anew: the tracker's start lifts a part of it
            try:
                ensure_running()
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)


class LocalAttempt:
    """A run in a process of this machine.

    Args:
        work: to carry out.
        jobs: runs at once, this one among them.
        devices: GPUs of its own; () where it sees what the study sees.
        end: called once, when its process is gone.
    """

    def __init__(
        self, work: Work, jobs: int, devices: Sequence[str] = (), end: Callable[[], None] = lambda: None
    ) -> None:
        self._ending, theirs = _CONTEXT.Pipe(duplex=False)
        self._work, self._end = work, end
        environment = {**os.environ, RUNS_AT_ONCE: str(jobs)}
        if devices:
            environment[VISIBLE] = ",".join(devices)
        self._process = _CONTEXT.Process(target=_carry_out, args=(work, environment, theirs))
        self._process.start()
        theirs.close()

    def ended(self) -> str | None:
        """None while it runs; then its error in one line, "" where there was none."""
        if self._process.is_alive():
            return None
        self._process.join()
        error = f"ended with exit code {self._process.exitcode}; see {self._work.log}"
        if (self._process.exitcode or 0) < 0:
            error = f"was killed by {signal.Signals(-(self._process.exitcode or 0)).name}; see {self._work.log}"
        with contextlib.suppress(EOFError, OSError):  # it died without a word
            if self._ending.poll():
                error = self._ending.recv()
        self._ending.close()
        self._end()
        return error

    def stop(self) -> None:
        """Ask it to write a checkpoint and end."""
        self._process.terminate()

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.join()


class LocalLauncher:
    """Runs on this machine, which share its cores.

    Args:
        say: takes a line.
    """

    poll_seconds = 0.05

    def __init__(self, say: Callable[[str], None] = lambda line: None) -> None:
        self._say, self._jobs, self._pool = say, 1, DevicePool(())

    def prepare(self, works: Sequence[Work], jobs: int | None) -> int:
        """Count the GPUs, and say how the runs share them; without a word on ``jobs`` each run has its own."""
        processes = max((work.processes for work in works if may_use_gpu(work.recipe)), default=0)
        devices = visible_devices() if processes else ()
        self._pool = DevicePool(devices)
        with_own = min(len(devices) // processes, len(works)) if processes else 0
        self._jobs = jobs or max(with_own, 1)
        at_once = min(self._jobs, len(works))
        if with_own and at_once > 1:
            self._say(sharing_words(at_once, processes, len(devices)))
        return self._jobs

    def start(self, work: Work) -> LocalAttempt:
        """Begin a run."""
        devices = self._pool.take(work.processes) if may_use_gpu(work.recipe) else ()
        return LocalAttempt(work, self._jobs, devices, lambda: self._pool.give_back(devices))


def _carry_out(work: Work, environment: dict[str, str], ending: Any) -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
    os.setpgrp()  # Ctrl-C is the study's to hear: it stops every run exactly once
    threading.Thread(target=_die_with_study, daemon=True).start()
    os.environ.clear()  # it is that of the fork server, as it was when that began
    os.environ.update(environment)
    _redirect(work)
    error = ""
    try:
        train_task(work)
    except BatchscaleError as failure:
        error = " ".join(str(failure).split())
        print(f"batchscale: {error}", file=sys.stderr, flush=True)
    except Exception as failure:
        traceback.print_exc()
        error = " ".join(f"{type(failure).__name__}: {failure}; see {work.log}".split())
    ending.send(error)


def _die_with_study() -> None:
    """The fork server outlives the study while runs live, so the kernel's parent-death signal would come too late."""
    study = multiprocessing.parent_process()
    if study is not None:
        connection.wait([study.sentinel])
        os.kill(os.getpid(), signal.SIGKILL)


def _redirect(work: Work) -> None:
    """Input from nowhere, output to the log."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    log = os.open(work.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.close(nothing)
    os.close(log)
