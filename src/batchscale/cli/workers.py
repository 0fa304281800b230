"""A command as one of W processes, which a launcher (ours, torchrun, srun, mpirun) has started."""

from __future__ import annotations

import argparse
import os
import socket
import sys
import time
import traceback
from collections.abc import Iterable
from typing import cast

from batchscale.cli.options import remove_unused, verdict
from batchscale.errors import BatchscaleError, ProcessError, UsageError
from batchscale.system.launcher import LAUNCHER, by_agent, of_cluster, starts_its_own
from batchscale.system.streams import Stream

_FOR_RANK_1_SECONDS = 3.0  # where rank 0 is lost: then a launcher that ends all tasks after one has ended them


def enter(options: argparse.Namespace, starting: Iterable[tuple[str, int]]) -> bool:
    """Take this process's place: it ends with its launcher.

    Args:
        options: of the command.
        starting: flags that start processes themselves, without the dashes, with their defaults.

    Returns:
        Whether the launcher is ours.

    Raises:
        UsageError: such a flag was set.
    """
    from batchscale.launch.processes import launched
    from batchscale.launch.signals import die_with_parent

    for name, default in starting:
        value = getattr(options, name.replace("-", "_"))
        if value != default:
            raise starts_its_own(f"--{name}={value}")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # of what torch warns of when we connect, an error tells
    if of_cluster() is None:  # which ends its tasks itself, and may have started them from a thread that ends
        die_with_parent(int(os.environ.get(LAUNCHER, os.getppid())))
    return launched()


def is_first() -> bool:
    """Whether this process is rank 0."""
    return int(os.environ["RANK"]) == 0


def tell(error: BaseException, options: argparse.Namespace, ours: bool) -> int:
    """Say an error, below a launcher that is not ours; the exit code."""
    if options.debug or not isinstance(error, BatchscaleError):
        traceback.print_exc()
    elif not ours:
        _say(error)
    if not is_first():
        time.sleep(0.5)  # let rank 0's line be the first that the launcher sees
    return error.exit_code if isinstance(error, BatchscaleError) else 1


def _say(error: BatchscaleError) -> None:
    """A process's error, once: rank 0 says what all know; what rank 0 cannot know, or cannot say, another one."""
    from batchscale.launch.processes import told_by_rank_zero

    rank, local_rank = int(os.environ["RANK"]), os.environ.get("LOCAL_RANK")
    line = f"batchscale: {error}"
    if rank == 0:
        print(line, file=sys.stderr, flush=True)
    if by_agent():  # which names the others' errors itself
        return
    if isinstance(error, UsageError):
        if not told_by_rank_zero(error) and rank > 0:
            print(f"batchscale: rank {rank} (host {socket.gethostname()}): {error}", file=sys.stderr, flush=True)
    elif isinstance(error, ProcessError) and error.leaderless and (rank == 1 or local_rank == "0"):
        if rank > 1:
            time.sleep(_FOR_RANK_1_SECONDS)
        print(line, file=sys.stderr, flush=True)


def leave(code: int, options: argparse.Namespace) -> int:
    """End this process without tearing the interpreter down: a peer's death must not turn into an abort of ours."""
    remove_unused(options)
    judged = verdict(code, cast(Stream, sys.stdout), options)
    sys.stderr.flush()
    os._exit(judged)
