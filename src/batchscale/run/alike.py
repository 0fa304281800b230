"""Whether all processes of a run were given the same: compared before anything else is agreed, or written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import torch

from batchscale import __version__
from batchscale.comm import World
from batchscale.errors import UsageError
from batchscale.members.loading import check_same as check_same_plugins
from batchscale.members.loading import loaded
from batchscale.recipe.load import flattened
from batchscale.run.job import Job
from batchscale.system.launcher import of_cluster, way_out

MAY_DIFFER = frozenset({"execution.device", "execution.decode_threads", "execution.decoders", "numerics.threads"})
"""Entries of a host. Devices are compared when the processes have met, threads in exact mode by ``fingerprint``."""
_NAMED = 3  # entries in a line


def check_alike(job: Job, world: World) -> None:
    """Raise, on all processes alike, unless all were given the same.

    Compared: plugins; the versions of batchscale and torch; the resolved recipe but for ``MAY_DIFFER``; --resume,
    --branch and --at; --out where it is given, as rank 0's is the one used. Not --data: what lies there is compared.
    A digest of it travels with the plugins; the entries themselves follow only where digests differ.

    Args:
        job: of this process.
        world: just connected.

    Raises:
        UsageError: names the rank, the entries, and both values.
    """
    rows = world.gather(_brought(job), "comparing what all processes were given")
    check_same_plugins([plugins for plugins, _, _ in rows])
    if any(digest != rows[0][1] for _, digest, _ in rows):
        check_same_entries(world.gather(_entries(job), "comparing recipes and options entry by entry"))
    check_same_entries(
        [{"--out": out} if rank == 0 or out is not None else {} for rank, (_, _, out) in enumerate(rows)]
    )


def _brought(job: Job) -> tuple[list[dict[str, str | None]], str, str | None]:
    """Plugins, the digest of the entries, and the folder."""
    digest = hashlib.sha256(json.dumps(_entries(job), sort_keys=True).encode()).hexdigest()
    return loaded(), digest, None if job.out is None else str(job.out)


def _entries(job: Job) -> dict[str, Any]:
    """What a process was given, by the names that users know; JSON values."""
    recipe = flattened(job.recipe.model_dump(mode="json"))
    return {
        "batchscale": __version__,
        "torch": torch.__version__,
        **{name: value for name, value in recipe.items() if name not in MAY_DIFFER},
        "--resume": job.resume,
        "--branch": str(job.branch.run) if job.branch else None,
        "--at": job.branch.step if job.branch else None,
    }


def check_same_entries(given: Sequence[dict[str, Any]]) -> None:
    """Raise where a rank's entries are not rank 0's; an empty one asks for nothing.

    Args:
        given: of every rank.

    Raises:
        UsageError: names the first such rank, the entries, and both values.
    """
    first = given[0]
    for rank, entries in enumerate(given):
        names = [n for n in {**first, **entries} if entries and first.get(n) != entries.get(n)]
        if names:
            named = ", ".join(f"{n}: {_value(entries.get(n))}, not {_value(first.get(n))}" for n in names[:_NAMED])
            more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            apart = f"; {way_out('for a run of each task, in each')}" if of_cluster() else ""
            raise UsageError(
                f"rank {rank} was given other than rank 0: {named}{more}; all processes train one run: start them with "
                f"the same recipe, options and versions{apart} (nothing was written)"
            )


def _value(value: Any) -> str:
    return value if isinstance(value, str) else "none" if value is None else json.dumps(value)
