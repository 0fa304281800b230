"""W local processes through PyTorch's elastic launcher, on loopback, without name look-ups."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shlex
import signal
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any

from batchscale.errors import BatchscaleError, ProcessError, UsageError, one_line
from batchscale.launch.signals import STOPS, final, heard
from batchscale.system.early import release
from batchscale.system.interpreter import variables, without_working_folder
from batchscale.system.launcher import LAUNCHER
from batchscale.system.temporary import temporary_folder

if TYPE_CHECKING:
    from torch.distributed.launcher.api import LaunchConfig

_COMMAND = "BATCHSCALE_COMMAND"  # what they are to record as the command, for a shell
_HANDLED = "TORCHELASTIC_SIGNALS_TO_HANDLE"  # by torch: none, as _signals_raise does
_SHUTDOWN_SECONDS = 30  # between asking the remaining processes to end and killing them


class Interrupted(BatchscaleError):
    """The launcher was asked to stop, and its processes have."""

    def __init__(self, number: int, kept: str) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}; {kept}")
        self.exit_code = 128 + number


def _environment(command: Sequence[str]) -> dict[str, str]:
    """What the launched processes, and torch's agent, find set."""
    workers = {
        _HANDLED: "",
        LAUNCHER: str(os.getpid()),
        _COMMAND: shlex.join(command),
        "TORCH_CPP_LOG_LEVEL": "ERROR",
        **without_working_folder(),
    }
    if "OMP_NUM_THREADS" not in os.environ:  # numerics.threads decides; this only keeps start-up quiet
        workers["OMP_NUM_THREADS"] = "1"
    if "GLOO_SOCKET_IFNAME" not in os.environ:
        workers["GLOO_SOCKET_IFNAME"] = "lo" if sys.platform == "linux" else "lo0"
    return workers


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
        Interrupted: this launcher, or a process, received a signal to stop.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import elastic_launch

    for name in ("torch.distributed.elastic", "torch.distributed.launcher"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        with temporary_folder("batchscale-") as logs, variables(**_environment(command)), _signals_raise():
            config = _configuration(processes, max_restarts, logs)
            elastic_launch(config, sys.executable)("-m", "batchscale", *arguments)
    except SignalException as error:
        raise Interrupted(int(error.sigval), way_on) from None
    except ChildFailedError as error:
        raise _explain(error, way_on) from None


def _configuration(processes: int, max_restarts: int, logs: str) -> LaunchConfig:
    """Of torch's agent: one host, loopback alone, no handlers of its own."""
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.launcher.api import LaunchConfig

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
    if hasattr(config, "signals_to_handle"):  # it goes before the environment variable
        config.signals_to_handle = ""
    return config


@contextlib.contextmanager
def _signals_raise() -> Iterator[None]:
    """Within it, a signal to stop ends the agent, which hands it on to its processes and waits for them.

    Torch's own handlers take back a SIGHUP that nohup ignores, stay when the agent has ended, and let a signal that
    comes twice, such as SIGHUP from kernel and shell, cut the agent's wait for the checkpoint short.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException

    received: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        again = number in received
        received.append(number)
        if len(received) == 1 or (again and number in final()):
            raise SignalException(f"received {number}", signal.Signals(number))

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    release()
    previous = {number: signal.getsignal(number) for number in heard()}
    try:
        for number in previous:
            signal.signal(number, stop)
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _explain(error: Any, way_on: str) -> BatchscaleError:
    from batchscale.comm.world.diagnosis import HUNG

    killed = {r: f for r, f in error.failures.items() if f.exitcode < 0 and f.exitcode != -signal.SIGTERM}
    hung = {r: f for r, f in error.failures.items() if HUNG in f.message}  # then the launcher killed the silent one
    # SIGTERM is what the agent ends the others by, and some have ended before it looks.
    others = {r: f for r, f in error.failures.items() if f.exitcode != -signal.SIGTERM}
    by_time = sorted((hung or killed or others or error.failures).items(), key=lambda item: item[1].timestamp)
    rank, failure = by_time[0]
    if failure.exitcode < 0:
        name = signal.Signals(-failure.exitcode).name
        return ProcessError(f"rank {rank} was killed by {name}; all processes were ended; {way_on}")
    if failure.exitcode - 128 in STOPS:
        return Interrupted(failure.exitcode - 128, way_on)
    sentence = failure.message.splitlines()[0]  # what the process has written down by record_error
    if failure.exitcode == UsageError.exit_code:
        return UsageError(sentence)
    return ProcessError(f"rank {rank} failed: {sentence}; all processes were ended; {way_on}")


def told_by_rank_zero(error: UsageError) -> bool:
    """Whether rank 0 says this mistake, found before the processes have met; below a launcher that is not ours."""
    from batchscale.comm.world.meeting import joined, tell_mistake

    return joined() or tell_mistake(str(error))


def launched() -> bool:
    """Whether this process was started by ``launch``."""
    return LAUNCHER in os.environ


def launched_command() -> tuple[str, ...]:
    """The command that ``launch`` was called for, in a process that it has started."""
    return tuple(shlex.split(os.environ[_COMMAND]))


def record_error(error: BaseException) -> None:
    """Leave this process's last error where the elastic agent looks for it."""
    file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if file:
        with open(file, "w", encoding="utf-8") as out:
            json.dump({"message": one_line(error), "timestamp": int(time.time())}, out)
