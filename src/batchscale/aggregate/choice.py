"""The automatic choice: the fastest all-reduce for each size, measured where it will run.

    algorithm(b) = argmin over a of median over rounds of max over processes of seconds(a, b)

All processes measure together and decide from the same gathered times, so all decide alike.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from batchscale.comm import Choice, Reducer
from batchscale.comm.reducer import BUILTIN, SHARED_MEMORY
from batchscale.comm.world.device import sharing
from batchscale.errors import UsageError

_ROUNDS = 5
_SLOW = 3.0  # an algorithm this many times slower than the best, once warm, is not measured further
_MOST_BYTES = 16 << 20  # a longer tensor is judged by its beginning
_DISTINCT_SIZES = 4

_BEGAN = " (as the run began)"

Times = dict[int, dict[str, float]]
"""Bytes -> algorithm -> seconds."""


def choose(
    reducer: Reducer,
    algorithm: str,
    tensors: Sequence[torch.Tensor],
    machine: Mapping[str, Any],
    stored: Mapping[str, Any] | None = None,
    previous: Mapping[str, Any] | None = None,
    wire: torch.dtype | None = None,
) -> Choice:
    """The choice for a run's tensors; all processes call this together.

    Args:
        reducer: whose algorithms are asked for.
        algorithm: an algorithm's name, or auto.
        tensors: what will be reduced, all zeros; left so.
        machine: what a measurement holds for: processor, versions, processes.
        stored: a choice that was measured and kept (``as_record``), of rank 0.
        previous: the choice of the run that this one goes on with, of rank 0.
        wire: type that tensors of float32 are sent in; None for their own.

    Raises:
        UsageError: an algorithm that this world cannot run.

    On GPUs auto is the backend's own, which has an algorithm for each size itself; nothing is measured.
    """
    world = reducer.world
    if world.size == 1:
        return Choice(((0, BUILTIN),), "one process")
    if algorithm != "auto":
        return _named(reducer, algorithm)
    if world.device.type == "cuda":
        # Alone, a torus may be a little faster in a measurement, and slower in a step, where builtin overlaps most.
        shared = sharing(world.devices)
        return Choice(((0, BUILTIN),), "by Gloo: processes share a GPU" if shared else "NCCL chooses by itself")
    available = reducer.available()
    choice, stale = world.from_rank_zero(lambda: _kept(machine, stored, previous, available), "choosing the all-reduce")
    if choice is not None:
        return choice
    times = measure(reducer, tensors, available, wire)
    return Choice(fastest(times), f"measured at the start of the run{stale}")


def _named(reducer: Reducer, algorithm: str) -> Choice:
    try:
        reducer.use(Choice(((0, algorithm),)))
    except UsageError:
        if algorithm != SHARED_MEMORY or not reducer.notes:
            raise
        return Choice(((0, BUILTIN),), f"{algorithm} was asked for, but {reducer.notes[0]}")
    return Choice(((0, algorithm),), "as asked for")


def _kept(
    machine: Mapping[str, Any],
    stored: Mapping[str, Any] | None,
    previous: Mapping[str, Any] | None,
    available: Sequence[str],
) -> tuple[Choice | None, str]:
    """The first kept choice that was made for this machine, else why there is none."""
    stale = ""
    for record, name in ((previous, "the run's choice"), (stored, "the stored choice")):
        if record is None:
            continue
        try:
            limits = tuple((int(limit), str(algorithm)) for limit, algorithm in record["limits"])
            measured_on, why = dict(record["machine"]), _line(record["why"])
            _check_rising([limit for limit, _ in limits])
        except (KeyError, TypeError, ValueError, OverflowError):
            stale += f"; {name} cannot be read"
            continue
        differs = [
            f"{k} {measured_on.get(k)!r}, here {machine.get(k)!r}"
            for k in machine
            if measured_on.get(k) != machine.get(k)
        ]
        missing = sorted({algorithm for _, algorithm in limits} - set(available))
        if not differs and limits and not missing:
            return Choice(limits, why.removesuffix(_BEGAN) + (_BEGAN if record is previous else "")), ""
        if not differs:
            stale += f"; {name} names {', '.join(missing) or 'nothing'}, which these processes cannot run"
            continue
        stale += f"; {name} is of another machine or version ({'; '.join(differs)})"
    return None, stale


def _line(text: object) -> str:
    if not isinstance(text, str) or not text.isprintable():
        raise ValueError("not a line of text")
    return text


def _check_rising(limits: Sequence[int]) -> None:
    """Raise unless the limits of a measured choice are positive and rise."""
    if any(upper <= lower for lower, upper in zip([0, *limits], limits, strict=False)):
        raise ValueError("limits do not rise")


def as_record(choice: Choice, machine: Mapping[str, Any]) -> dict[str, Any]:
    """A choice as a document that ``choose`` takes back."""
    return {"limits": [list(pair) for pair in choice.limits], "why": choice.why, "machine": dict(machine)}


def measure(
    reducer: Reducer, tensors: Sequence[torch.Tensor], algorithms: Sequence[str], wire: torch.dtype | None = None
) -> Times:
    """Seconds of every algorithm on tensors of every size, in turn; slow ones only twice.

    Args:
        reducer: all processes call this together.
        tensors: all zeros.
        algorithms: names.
        wire: type that they are sent in; None for their own.
    """
    distinct = {t.nbytes: t for t in (t.view(-1)[: _MOST_BYTES // t.element_size()] for t in tensors)}
    sizes = sorted(distinct)
    if len(sizes) > _DISTINCT_SIZES:
        sizes = [sizes[round(i * (len(sizes) - 1) / (_DISTINCT_SIZES - 1))] for i in range(_DISTINCT_SIZES)]
    pairs = [(size, name) for size in sizes for name in algorithms]
    _round(reducer, distinct, pairs, wire)  # connects pairs, fills caches
    first = _round(reducer, distinct, pairs, wire)
    best = {size: min(first[size, name] for name in algorithms) for size in sizes}
    pairs = [(size, name) for size, name in pairs if first[size, name] <= _SLOW * best[size] or name == BUILTIN]
    rounds = [_round(reducer, distinct, pairs, wire) for _ in range(_ROUNDS)]
    times: Times = {}
    for size, name in pairs:
        times.setdefault(size, {})[name] = statistics.median(r[size, name] for r in rounds)
    return times


def _round(
    reducer: Reducer,
    tensors: Mapping[int, torch.Tensor],
    pairs: Sequence[tuple[int, str]],
    wire: torch.dtype | None,
) -> dict[tuple[int, str], float]:
    """Each pair once: the time of the slowest process."""
    seconds = []
    for size, name in pairs:
        start = _now(reducer.world.device)
        reducer.all_reduce(tensors[size], "choosing the all-reduce", name, wire)
        seconds.append(_now(reducer.world.device) - start)
    seconds_by_rank = reducer.world.gather(seconds, "choosing the all-reduce")
    return {pair: max(column) for pair, column in zip(pairs, zip(*seconds_by_rank, strict=True), strict=True)}


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def fastest(times: Times) -> tuple[tuple[int, str], ...]:
    """Limits of a choice: the fastest of every size, halfway (in ratio) to the next size."""
    sizes = sorted(times)
    best = [min(times[size], key=lambda name: times[size][name]) for size in sizes]
    limits: list[tuple[int, str]] = []
    for place, (size, name) in enumerate(zip(sizes, best, strict=True)):
        limit = round(math.sqrt(size * sizes[place + 1])) if place + 1 < len(sizes) else size
        if limits and limits[-1][1] == name:
            limits[-1] = (limit, name)
        else:
            limits.append((limit, name))
    return tuple(limits)
