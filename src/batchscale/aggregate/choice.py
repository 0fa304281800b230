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
from batchscale.errors import UsageError

_ROUNDS = 5
_SLOW = 3.0  # an algorithm this many times slower than the best of the first round is not measured further
_MOST_BYTES = 16 << 20  # a longer tensor is judged by its beginning
_DISTINCT_SIZES = 4

Times = dict[int, dict[str, float]]
"""Bytes -> algorithm -> seconds."""


def choose(
    reducer: Reducer,
    wanted: str,
    tensors: Sequence[torch.Tensor],
    machine: Mapping[str, Any],
    stored: Mapping[str, Any] | None = None,
    before: Mapping[str, Any] | None = None,
) -> Choice:
    """The choice for a run's tensors; all processes call this together.

    Args:
        reducer: whose algorithms are asked for.
        wanted: an algorithm's name, or auto.
        tensors: what will be reduced, all zeros; left so.
        machine: what a measurement holds for: processor, versions, processes.
        stored: a choice that was measured and kept (``as_record``), of rank 0.
        before: the choice of the run that this one goes on with, of rank 0.

    Raises:
        UsageError: an algorithm that this world cannot run.
    """
    world = reducer.world
    if world.size == 1:
        return Choice(((0, BUILTIN),), "one process")
    if wanted != "auto":
        return _named(reducer, wanted)
    kept = world.from_rank_zero(lambda: _kept(machine, stored, before), "choosing the all-reduce")
    choice, stale = kept
    if choice is not None and {name for _, name in choice.limits} <= set(reducer.available()):
        return choice
    times = measure(reducer, tensors, reducer.available())
    return Choice(fastest(times), f"measured at the start of the run{stale}")


def _named(reducer: Reducer, wanted: str) -> Choice:
    try:
        reducer.use(Choice(((0, wanted),)))
    except UsageError:
        if wanted != SHARED_MEMORY or not reducer.notes:
            raise
        return Choice(((0, BUILTIN),), f"{wanted} was asked for, but {reducer.notes[0]}")
    return Choice(((0, wanted),), "named in the recipe")


def _kept(
    machine: Mapping[str, Any], stored: Mapping[str, Any] | None, before: Mapping[str, Any] | None
) -> tuple[Choice | None, str]:
    """The first kept choice that was made for this machine, else why there is none."""
    stale = ""
    for record, name in ((before, "the run as it began"), (stored, "the stored choice")):
        if record is None:
            continue
        try:
            limits = tuple((int(limit), str(algorithm)) for limit, algorithm in record["limits"])
            other = dict(record["machine"])
        except (KeyError, TypeError, ValueError):
            stale += f"; {name} cannot be read"
            continue
        differs = [f"{k} {other.get(k)!r}, here {machine.get(k)!r}" for k in machine if other.get(k) != machine.get(k)]
        if not differs and limits:
            return Choice(limits, f"{record.get('why', '')} ({name})" if record is before else str(record["why"])), ""
        stale += f"; {name} is of another machine or version ({'; '.join(differs)})"
    return None, stale


def as_record(choice: Choice, machine: Mapping[str, Any]) -> dict[str, Any]:
    """A choice as a document that ``choose`` takes back."""
    return {"limits": [list(pair) for pair in choice.limits], "why": choice.why, "machine": dict(machine)}


def measure(reducer: Reducer, tensors: Sequence[torch.Tensor], algorithms: Sequence[str]) -> Times:
    """Seconds of every algorithm on tensors of every size, in turn; slow ones only once.

    Args:
        reducer: all processes call this together.
        tensors: all zeros.
        algorithms: names.
    """
    distinct = {t.nbytes: t for t in (t.view(-1)[: _MOST_BYTES // t.element_size()] for t in tensors)}
    sizes = sorted(distinct)
    if len(sizes) > _DISTINCT_SIZES:
        sizes = [sizes[round(i * (len(sizes) - 1) / (_DISTINCT_SIZES - 1))] for i in range(_DISTINCT_SIZES)]
    pairs = [(size, name) for size in sizes for name in algorithms]
    first = _round(reducer, distinct, pairs)  # connects pairs, fills caches
    best = {size: min(first[size, name] for name in algorithms) for size in sizes}
    pairs = [(size, name) for size, name in pairs if first[size, name] <= _SLOW * best[size] or name == BUILTIN]
    rounds = [_round(reducer, distinct, pairs) for _ in range(_ROUNDS)]
    times: Times = {}
    for size, name in pairs:
        times.setdefault(size, {})[name] = statistics.median(r[size, name] for r in rounds)
    return times


def _round(
    reducer: Reducer, tensors: Mapping[int, torch.Tensor], pairs: Sequence[tuple[int, str]]
) -> dict[tuple[int, str], float]:
    """Each pair once: the time of the slowest process."""
    seconds = []
    for size, name in pairs:
        start = time.perf_counter()
        reducer.all_reduce(tensors[size], "choosing the all-reduce", name)
        seconds.append(time.perf_counter() - start)
    said = reducer.world.gather(seconds, "choosing the all-reduce")
    return {pair: max(column) for pair, column in zip(pairs, zip(*said, strict=True), strict=True)}


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
