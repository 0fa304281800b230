"""What the environment says of W processes that this one is said to belong to."""

from __future__ import annotations

import os
import sys

from batchscale.errors import UsageError
from batchscale.system.cluster import ClusterTask, cluster_task

_WORLD = ("RANK", "WORLD_SIZE")
_MEETING = ("MASTER_ADDR", "MASTER_PORT")
LAUNCHER = "BATCHSCALE_LAUNCHER_PID"
"""Set for processes that batchscale itself has launched."""


def of_cluster() -> ClusterTask | None:
    """The task that a cluster's launcher has made of this process, one of several; None where it is none.

    What an agent, such as torchrun's below srun, has set goes before what the cluster says.
    """
    task = None if by_agent() else cluster_task(os.environ)
    if task is None or task.size == 1:
        return None
    told = [os.environ.get(name, str(number)) for name, number in zip(_WORLD, (task.rank, task.size), strict=True)]
    return task if told == [str(task.rank), str(task.size)] else None


def _fill() -> None:
    """Set what torchrun would have, from what a cluster's launcher says; a user's own value stays.

    Raises:
        UsageError: nothing says where rank 0 is.
    """
    task = of_cluster()
    if task is None:
        return
    if not os.environ.get("MASTER_ADDR"):
        address = task.address()
        if address is None:
            raise UsageError(
                f"{described()}: set, so a launcher has started this process as one of {task.size} on several hosts, "
                "but nothing says where rank 0 is: set MASTER_ADDR to the address of its host, for every process alike"
            )
        os.environ["MASTER_ADDR"] = address
    values = {
        "RANK": task.rank,
        "WORLD_SIZE": task.size,
        "LOCAL_RANK": task.local_rank,
        "LOCAL_WORLD_SIZE": task.local_size or None,
        "GROUP_RANK": task.node,
        "MASTER_PORT": task.port,
        "TORCH_CPP_LOG_LEVEL": "ERROR",  # as in processes of our own: no warning once a process
    }
    for name, value in values.items():
        if value is not None and not os.environ.get(name):
            os.environ[name] = str(value)


def world_told() -> tuple[int, int]:
    """(rank, W) as a launcher has set them; (0, 1) where none has.

    Where a cluster's launcher has started this process as one of several tasks, all that torchrun sets is set from here
    on: RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, GROUP_RANK, MASTER_ADDR, MASTER_PORT.

    Raises:
        UsageError: some of what a launcher sets is missing, or is no number; names all of it.
    """
    _fill()
    if not any(name in os.environ for name in _WORLD):
        return 0, 1
    missing = [name for name in (*_WORLD, *_MEETING) if not os.environ.get(name)]
    if missing:
        raise UsageError(
            f"{described()}: set, but not {', '.join(missing)}: one of W processes needs all four, as torchrun sets "
            f"them; {way_out()}"
        )
    rank, size, port = (os.environ[name] for name in ("RANK", "WORLD_SIZE", "MASTER_PORT"))
    if not (rank.isdecimal() and size.isdecimal() and port.isdecimal() and int(rank) < int(size)):
        raise UsageError(
            f"{described()}: must be whole numbers, RANK from 0 to WORLD_SIZE - 1, and a port; {way_out()}"
        )
    return int(rank), int(size)


def is_worker() -> bool:
    """Whether a launcher (ours, torchrun, srun, mpirun) has started this process as one of W.

    Raises:
        UsageError: as ``world_told``.
    """
    _, size = world_told()
    return size > 1 or ("RANK" in os.environ and by_agent())


def by_agent() -> bool:
    """Whether an elastic agent, ours or torchrun's, has started this process: what it was told is not left over."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def check_alone(what: str) -> None:
    """Raise where a launcher, or what is left over of one, makes this process one of W.

    Args:
        what: the command or option that starts processes itself.

    Raises:
        UsageError: names the variables and their values.
    """
    if of_cluster() is not None or world_told()[1] > 1:
        raise starts_its_own(what)


def starts_its_own(what: str) -> UsageError:
    """The mistake of giving a process that a launcher has started what starts processes itself.

    Args:
        what: the command or option.

    Raises:
        SystemExit: this is a further task of a cluster's launcher, all of which run this command: rank 0 says it.
    """
    task = of_cluster()
    if task is not None and task.rank > 0:
        sys.exit(UsageError.exit_code)
    return UsageError(
        f"{described()}: set, so a launcher has started this process, but {what} starts its own: use one of the two; "
        f"{way_out()}"
    )


def _names() -> tuple[str, ...]:
    """The variables that make this process one of W."""
    task = of_cluster()
    return task.names if task is not None else _WORLD


def described() -> str:
    """The variables that are set, with their values."""
    return ", ".join(f"{name}={os.environ[name]}" for name in (*_names(), *_MEETING) if name in os.environ)


def way_out() -> str:
    """How to go on where they are left over."""
    names = _names() if of_cluster() is not None else (*_WORLD, *_MEETING)
    return f"if they are left over in this shell: unset {' '.join(name for name in names if name in os.environ)}"
