"""Which all-reduce a run uses: named, as the run began, stored by ``bench allreduce``, or measured now."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from batchscale import __version__
from batchscale.aggregate.choice import as_record, choose
from batchscale.comm import Choice, Reducer, World
from batchscale.comm.collectives import COLLECTIVES, make
from batchscale.comm.reducer import BUILTIN
from batchscale.recipe.schema import Aggregation
from batchscale.records.files import write_whole
from batchscale.records.provenance import cpu_model
from batchscale.system.cores import available_cores


def machine(world: World) -> dict[str, Any]:
    """What a measured choice holds for."""
    gpu = torch.cuda.get_device_name(world.device) if world.device.type == "cuda" else None
    return {
        "processor": gpu or cpu_model(),
        "cores": available_cores(),
        "torch": torch.__version__,
        "batchscale": __version__,
        "processes_per_host": [len(ranks) for ranks in world.hosts],
    }


def stored_file(processes: int) -> Path:
    """Where the choice for W processes is kept: XDG_CACHE_HOME, else ~/.cache."""
    cache = os.environ.get("XDG_CACHE_HOME")
    return Path(cache or Path.home() / ".cache") / "batchscale" / f"allreduce-{processes}.json"


def store(choice: Choice, world: World) -> Path:
    """Keep a choice for the runs to come on this machine."""
    file = stored_file(world.size)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, json.dumps(as_record(choice, machine(world)), indent=2).encode())
    return file


def stored(processes: int) -> dict[str, Any] | None:
    """The choice that is kept for W processes; an empty one where the file cannot be read."""
    try:
        record = json.loads(stored_file(processes).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, RuntimeError):  # RuntimeError: there is no home
        return None
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def check_algorithm(entry: Aggregation, processes: int) -> None:
    """Whether W processes of one host can use the algorithm that a recipe names.

    Raises:
        UsageError: one line.
    """
    if processes > 1 and entry.algorithm in COLLECTIVES:
        make(entry.algorithm, processes, [range(processes)], torus=entry.torus, between=entry.between)


def make_reducer(entry: Aggregation, world: World) -> Reducer:
    """The processes' reducer, its algorithm not yet chosen."""
    return Reducer(world, torus=entry.torus, between=entry.between)


def decide(
    entry: Aggregation,
    reducer: Reducer,
    tensors: Sequence[torch.Tensor],
    earlier: Sequence[Mapping[str, Any]] = (),
    wire: torch.dtype | None = None,
) -> dict[str, Any]:
    """Choose the algorithm for a run's tensors, and say how and why, for its record.

    Args:
        entry: execution.aggregation.
        reducer: all processes call this together.
        tensors: what a step reduces, all zeros.
        earlier: what this said in earlier attempts of the run, the newest first.
        wire: type that gradients are sent in, where it is another than their own.

    Raises:
        UsageError: an algorithm that this world cannot run.
    """
    world, sent_as = reducer.world, _wire_record(wire)
    kept = stored(world.size) if world.rank == 0 and world.size > 1 and entry.algorithm == "auto" else None
    conditions = {**machine(world), "torus": entry.torus and list(entry.torus), "between": entry.between}
    conditions |= sent_as
    measured = [record for record in earlier if record.get("wanted") == "auto"]
    alike = next((record for record in measured if record.get("machine") == conditions), None)
    if kept is not None and isinstance(kept.get("machine"), dict):
        shape = {"torus": None, "between": "auto"}  # of bench allreduce
        kept = {**kept, "machine": {**shape, **kept["machine"]}}
    choice = choose(reducer, entry.algorithm, tensors, conditions, kept, alike, wire)
    reducer.use(choice)
    notes = [*reducer.notes, *_added_by_backend(choice, wire)] if world.size > 1 else reducer.notes
    return {**as_record(choice, conditions), "wanted": entry.algorithm, "notes": notes, **sent_as}


def _wire_record(wire: torch.dtype | None) -> dict[str, Any]:
    """Nothing where gradients are sent as they are: records of earlier versions are of these."""
    return {} if wire is None else {"wire": str(wire).removeprefix("torch.")}


def _added_by_backend(choice: Choice, wire: torch.dtype | None) -> list[str]:
    """That the backend adds in 16 bits, as a note, where it is to add gradients that are sent so."""
    if wire is None or BUILTIN not in {name for _, name in choice.limits}:
        return []
    return [f"{BUILTIN} adds in {_wire_record(wire)['wire']} itself: every addition rounds"]


def as_text(decided: Mapping[str, Any]) -> str:
    """What ``decide`` said, as lines for a user."""
    limits = [(int(limit), str(name)) for limit, name in decided["limits"]]
    parts = [f"{name} up to {limit / 1024:.4g} KiB" for limit, name in limits[:-1]]
    rest = " beyond" if parts else ""
    lines = [f"all-reduce: {', '.join([*parts, limits[-1][1] + rest])} ({decided['why']})"]
    if "wire" in decided:
        lines[0] += f", gradients sent as {decided['wire']}"
    return "\n".join([*lines, *(f"note: {note}" for note in decided["notes"])])
