"""A run's data on all its processes: what must be listed of a file system, one process of each host lists for all.

A thousand processes that each look through a million files ask one server for a billion names. What opening the data
has listed is plain data (``Splits.listing``: of image folders one block of names, and the labels), so it is handed on:
through a file in memory, from the process that starts the others to these, else from a host's first process to its
others. Where the system has no such files, every process lists for itself. That all hosts have the same images, their
contents tell (``run/fingerprint.py``).
"""

from __future__ import annotations

import contextlib
import os
import pickle
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from batchscale.build.inputs import load_data
from batchscale.comm import World
from batchscale.data import DATASETS, OwnData
from batchscale.data.examples import Splits
from batchscale.errors import DataError, ProcessError, UsageError, one_line
from batchscale.recipe import Recipe
from batchscale.system.memory_file import memory_file, path_of

LISTING = "BATCHSCALE_LISTING"
"""For processes that are started: where they find what the one that starts them has listed; "" for nowhere."""

_NAME = "batchscale-listing"


@contextlib.contextmanager
def offered(listing: Any) -> Iterator[str]:
    """Within it, other processes of this host can read a listing; where, or "" where there is none or no way to.

    Args:
        listing: from ``Splits.listing``.
    """
    handle, path = -1, ""
    try:
        if listing is not None:
            with contextlib.suppress(OSError):
                handle = memory_file(_NAME)
                with open(handle, "wb", closefd=False) as file:
                    pickle.dump(listing, file, pickle.HIGHEST_PROTOCOL)
                path = path_of(handle)
        del listing  # whoever waits in here for a run's end holds it once, not twice
        yield path
    finally:
        if handle >= 0:
            os.close(handle)


def _read(path: str) -> Any:
    """An offered listing; None where it cannot be had, or has no end, as of a process that was ended as it wrote."""
    with contextlib.suppress(OSError, EOFError, pickle.UnpicklingError):
        if path and os.readlink(path).startswith(f"/memfd:{_NAME}"):  # not what has the number after it
            with open(path, "rb") as file:
                return pickle.load(file)
    return None


@contextlib.contextmanager
def load_together(recipe: Recipe, folder: Path | None, own_data: OwnData | None, world: World) -> Iterator[Splits]:
    """The recipe's data set on every process; all stay within until all have it.

    Args:
        recipe: resolved.
        folder: of the data sets.
        own_data: one's own data set; None for the recipe's.
        world: the processes; all of them call this together.

    Raises:
        DataError: as ``load_data``; of the first process of another host, on all, naming it.
        ProcessError: that failed otherwise.
    """
    handed = os.environ.pop(LISTING, "")  # so that no command that a run starts takes it for its own
    source = DATASETS.get(recipe.data.name)
    dataset: Splits | None = None
    failure: Exception | None = None
    if own_data is not None or source is None or not source.lists_once:
        try:
            dataset = load_data(recipe, folder, own_data)
        except Exception as error:
            failure = error
        _check_listed(world.gather(_told(failure), "opening the data set"), failure, len(world.hosts))
        yield cast(Splits, dataset)
        return
    path = ""
    with contextlib.ExitStack() as offer:
        if world.local_rank == 0:
            try:
                listing = _read(handed)
                dataset = load_data(recipe, folder, listing=listing)
                if len(world.local_ranks) > 1:
                    path = handed if listing is not None else offer.enter_context(offered(dataset.listing))
            except Exception as error:
                failure = error
        answers = world.gather((path, _told(failure)), "listing the data set")
        _check_listed([line for _, line in answers], failure, len(world.hosts))
        if dataset is None:
            dataset = load_data(recipe, folder, listing=_read(answers[world.local_ranks[0]][0]))
        yield dataset


def _told(failure: Exception | None) -> tuple[bool, str, str] | None:
    """Of a failure of this process, for ``_check_listed``."""
    return (isinstance(failure, UsageError), one_line(failure), socket.gethostname()) if failure else None


def _check_listed(lines: Sequence[tuple[bool, str, str] | None], failure: Exception | None, hosts: int) -> None:
    """Raise on all processes where one could not open the data.

    Args:
        lines: of each rank: whether it is the user's mistake, the sentence, the host; None where all is well.
        failure: of this rank.
        hosts: how many there are.
    """
    failed = next(((rank, *line) for rank, line in enumerate(lines) if line), None)
    if failed is None:
        return
    rank, mistake, sentence, host = failed
    if failure is not None and (hosts == 1 or not isinstance(failure, UsageError)):
        raise failure
    sentence = f"rank {rank} (host {host}): {sentence}" if hosts > 1 else sentence
    raise (DataError if mistake else ProcessError)(sentence) from failure
