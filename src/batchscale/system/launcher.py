"""What the environment says of W processes that this one is said to belong to."""

from __future__ import annotations

import os

from batchscale.errors import UsageError

_WORLD = ("RANK", "WORLD_SIZE")
_MEETING = ("MASTER_ADDR", "MASTER_PORT")
LAUNCHER = "BATCHSCALE_LAUNCHER_PID"
"""Set for processes that batchscale itself has launched."""


def world_told() -> tuple[int, int]:
    """(rank, W) as a launcher has set them; (0, 1) where none has.

    Raises:
        UsageError: some of what a launcher sets is missing, or is no number; names all of it.
    """
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
    """Whether a launcher (ours, torchrun, srun with its variables set) has started this process as one of W.

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
    if world_told()[1] > 1:
        raise starts_its_own(what)


def starts_its_own(what: str) -> UsageError:
    """The mistake of giving a process that a launcher has started what starts processes itself.

    Args:
        what: the command or option.
    """
    return UsageError(
        f"{described()}: set, so a launcher has started this process, but {what} starts its own: use one of the two; "
        f"{way_out()}"
    )


def described() -> str:
    """The variables that are set, with their values."""
    return ", ".join(f"{name}={os.environ[name]}" for name in (*_WORLD, *_MEETING) if name in os.environ)


def way_out() -> str:
    """How to go on where they are left over."""
    names = " ".join(name for name in (*_WORLD, *_MEETING) if name in os.environ)
    return f"if they are left over in this shell: unset {names}"
