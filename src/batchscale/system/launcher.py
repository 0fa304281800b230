"""What the environment says of W processes that this one is said to belong to."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Sequence

from batchscale.errors import UsageError
from batchscale.system.cluster import ClusterTask, cluster_task

_WORLD = ("RANK", "WORLD_SIZE")
_MEETING = ("MASTER_ADDR", "MASTER_PORT")
_LAST_PORT = 65_535
LAUNCHER = "BATCHSCALE_LAUNCHER_PID"
"""Set for processes that batchscale itself has launched."""
_FILLED = "BATCHSCALE_FILLED"  # the names of what is set by ``_fill``; in the environment, as they are, too


def of_cluster() -> ClusterTask | None:
    """The task that a cluster's launcher has made of this process, one of several; None where it is none.

    What an agent, such as torchrun's below srun, has set goes before what the cluster says; so does a user's own.

    Raises:
        UsageError: variables of such a task that are incomplete, or no numbers.
    """
    if by_agent():
        return None
    try:
        task = cluster_task(os.environ)
    except UsageError:
        if all(os.environ.get(name) for name in _WORLD):
            return None
        raise
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
            several, alone = (" on several hosts", "") if task.local_size else ("", " (127.0.0.1 where all share one)")
            raise UsageError(
                f"{_found()}: set, so a launcher has started this process as one of {task.size}{several}, but nothing "
                f"says where rank 0 is: set MASTER_ADDR to the address of its host{alone}, for every process alike"
            )
    else:
        address = None
    values = {
        "MASTER_ADDR": address,
        "RANK": task.rank,
        "WORLD_SIZE": task.size,
        "LOCAL_RANK": task.local_rank,
        "LOCAL_WORLD_SIZE": task.local_size or None,
        "GROUP_RANK": task.node,
        "MASTER_PORT": task.port,
        "TORCH_CPP_LOG_LEVEL": "ERROR",  # as in processes of our own: no warning once a process
    }
    missing = {name: str(value) for name, value in values.items() if value is not None and not os.environ.get(name)}
    if missing:
        os.environ.update(missing, **{_FILLED: ",".join(missing)})


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
            f"{_found()}: set, but not {', '.join(missing)}: one of W processes needs all four, as torchrun sets "
            f"them; {way_out()}"
        )
    size = _number("WORLD_SIZE", "a whole number")
    rank = _number("RANK", f"a whole number below WORLD_SIZE={size}", size - 1)
    _number("MASTER_PORT", f"a port, at most {_LAST_PORT}", _LAST_PORT)
    return rank, size


def _number(name: str, rule: str, most: int | None = None) -> int:
    """The number that a variable holds; UsageError where it holds none, or one above the most."""
    word = os.environ[name]
    if not word.isdecimal() or (most is not None and int(word) > most):
        raise UsageError(f"{name}={word}: must be {rule}; a launcher has set {_found()}; {way_out()}")
    return int(word)


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
        SystemExit: as ``check_one_task``.
    """
    _leave_to_rank_zero(of_cluster())
    return UsageError(
        f"{_found()}: set, so a launcher has started this process, but {what} starts its own: use one of the two; "
        f"{way_out()}"
    )


def check_one_task(command: str) -> None:
    """Raise where each of several tasks of a cluster's launcher would do the work of one, and write the same files.

    Variables that are no task's are passed over: the command is none that they concern.

    Args:
        command: its name.

    Raises:
        UsageError: names the variables and the way out.
        SystemExit: this is a further task; all of them run this command, and rank 0 says what is wrong.
    """
    task = None
    with contextlib.suppress(UsageError):
        task = of_cluster()
    if task is None:
        return
    _leave_to_rank_zero(task)
    raise UsageError(
        f"{_found()}: set, so a launcher has started this process as one of {task.size}, but {command} is the work of "
        f"one: start one task ({task.starter} 1); {way_out()}"
    )


def _leave_to_rank_zero(task: ClusterTask | None) -> None:
    if task is not None and task.rank > 0:
        sys.exit(UsageError.exit_code)


def _names() -> tuple[str, ...]:
    """The variables that make this process one of W."""
    task = of_cluster()
    return task.names if task is not None else _WORLD


def described() -> str:
    """The variables that say who this process is and where all meet, with their values."""
    return ", ".join(f"{name}={os.environ[name]}" for name in (*_names(), *_MEETING) if name in os.environ)


def _found() -> str:
    """Those of them that were set before batchscale filled in the others."""
    filled = os.environ.get(_FILLED, "").split(",")
    names = (name for name in (*_names(), *_MEETING) if name in os.environ and name not in filled)
    return ", ".join(f"{name}={os.environ[name]}" for name in names)


def way_out(where: str = "if they are left over in this shell") -> str:
    """How to go on where they are left over.

    Args:
        where: they are to be unset.
    """
    names = _names() if of_cluster() is not None else (*_WORLD, *_MEETING)
    return f"{where}: unset {' '.join(name for name in names if name in os.environ)}"


def names_launcher(command: Sequence[str]) -> bool:
    """Whether these words start all processes of this run, rather than one that a cluster's launcher has started.

    Args:
        command: of the run.
    """
    if LAUNCHER in os.environ:
        return True
    with contextlib.suppress(UsageError):
        task = cluster_task(os.environ)
        if task is not None and task.size > 1:
            return False
    return world_told()[1] == 1 or command[0] == "torchrun"


def in_its_words(sentence: str) -> str:
    """A sentence of --processes=W, where another launcher has started W: of its tasks, and how to start fewer.

    Args:
        sentence: of an error.
    """
    size = world_told()[1]
    if size == 1 or LAUNCHER in os.environ:
        return sentence
    task = of_cluster()
    things, name, starter = ("processes", _WORLD[1], "") if task is None else ("tasks", task.names[1], task.starter)
    way = rf"start at most \1 {things}" + (rf", {starter} \1," if starter else "")
    return re.sub(
        r"use --processes (\d+)", way, sentence.replace(f"--processes={size}", f"{size} {things} ({name}={size})")
    )
