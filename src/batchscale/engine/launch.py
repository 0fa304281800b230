"""W local processes through PyTorch's elastic launcher, on loopback, without name look-ups."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shlex
import signal
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

from batchscale.errors import BatchscaleError, ProcessError, UsageError, one_line

LAUNCHER = "BATCHSCALE_LAUNCHER_PID"  # set for processes that batchscale itself has launched
_COMMAND = "BATCHSCALE_COMMAND"  # what they are to record as the command, for a shell
RUNS_AT_ONCE = "BATCHSCALE_RUNS_AT_ONCE"  # set for a study's runs on this machine: they share its cores
_SHUTDOWN_SECONDS = 30  # between asking the remaining processes to end and killing them


class Interrupted(BatchscaleError):
    """The launcher was asked to stop, and its processes have."""

    def __init__(self, number: int, kept: str) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}; {kept}")
        self.exit_code = 128 + number


@contextlib.contextmanager
def _environment(**values: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def launch(arguments: Sequence[str], processes: int, max_restarts: int, command: Sequence[str], way_on: str) -> None:
    """Run ``python -m batchscale ARGUMENTS`` in W processes until all end well.

    Args:
        arguments: of the batchscale command line.
        processes: W.
        max_restarts: how often all processes are started again after one failed.
        command: for the records of the run.
        way_on: how to go on, for errors.

    Raises:
        UsageError: a process found a mistake of the user's.
        ProcessError: a process died or hung; names the rank and its last error.
        Interrupted: this launcher received SIGINT or SIGTERM.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    for name in ("torch.distributed.elastic", "torch.distributed.launcher"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    workers = {LAUNCHER: str(os.getpid()), _COMMAND: shlex.join(command), "TORCH_CPP_LOG_LEVEL": "ERROR"}
    if "OMP_NUM_THREADS" not in os.environ:  # numerics.threads decides; this only keeps start-up quiet
        workers["OMP_NUM_THREADS"] = "1"
    if "GLOO_SOCKET_IFNAME" not in os.environ:
        workers["GLOO_SOCKET_IFNAME"] = "lo" if sys.platform == "linux" else "lo0"
    with tempfile.TemporaryDirectory(prefix="batchscale-") as logs, _environment(**workers):
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=processes,
            logs_specs=DefaultLogsSpecs(log_dir=logs),
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint="127.0.0.1:0",
            rdzv_configs={"is_host": True},
            local_addr="127.0.0.1",
            max_restarts=max_restarts,
            monitor_interval=0.1,
        )
        if hasattr(config, "shutdown_timeout"):  # of newer torch; older ones wait 30 s
            config.shutdown_timeout = _SHUTDOWN_SECONDS
        try:
            elastic_launch(config, sys.executable)("-m", "batchscale", *arguments)
        except SignalException as error:
            raise Interrupted(int(error.sigval), way_on) from None
        except ChildFailedError as error:
            raise _explain(error, way_on) from None


def _explain(error: Any, way_on: str) -> BatchscaleError:
    from batchscale.comm.diagnosis import HUNG

    killed = {r: f for r, f in error.failures.items() if f.exitcode < 0 and f.exitcode != -signal.SIGTERM}
    hung = {r: f for r, f in error.failures.items() if HUNG in f.message}  # then the launcher killed the silent one
    chosen = hung or killed
    rank, failure = next(iter(chosen.items())) if chosen else error.get_first_failure()
    if failure.exitcode < 0:
        name = signal.Signals(-failure.exitcode).name
        return ProcessError(f"rank {rank} was killed by {name}; all processes were ended; {way_on}")
    if failure.exitcode in (128 + signal.SIGINT, 128 + signal.SIGTERM):
        return Interrupted(failure.exitcode - 128, way_on)
    said = failure.message.splitlines()[0]  # what the process has written down by record_error
    if failure.exitcode == UsageError.exit_code:
        return UsageError(said)
    return ProcessError(f"rank {rank} failed: {said}; all processes were ended; {way_on}")


def launched() -> bool:
    """Whether this process was started by ``launch``."""
    return LAUNCHER in os.environ


def launched_command() -> tuple[str, ...]:
    """The command that ``launch`` was called for, in a process that it has started."""
    return tuple(shlex.split(os.environ[_COMMAND]))


def is_worker() -> bool:
    """Whether a launcher (ours, torchrun, srun with its variables set) has started this process as one of W."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def record_error(error: BaseException) -> None:
    """Leave this process's last error where the elastic agent looks for it."""
    file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if file:
        with open(file, "w", encoding="utf-8") as out:
            json.dump({"message": one_line(error), "timestamp": int(time.time())}, out)
