"""Real worlds of W processes for tests, and small training parts to run in them."""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import multiprocessing

import batchscale
from batchscale.bench.contender import free_port as free_port
from batchscale.comm import World
from batchscale.run.job import Resume

CPU = torch.device("cpu")
_CONTEXT = multiprocessing.get_context("forkserver")  # forks of one that has imported torch: no 3 to 8 s a process
_CONTEXT.set_forkserver_preload(["torch", "torch._dynamo", "batchscale.run.run"])


def _enter(
    rank: int,
    size: int,
    port: int,
    environment: dict[str, str],
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    queue: Any,
) -> None:
    os.environ.clear()  # it is that of the fork server, as it was when that began
    os.environ.update(
        environment, RANK=str(rank), WORLD_SIZE=str(size), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port),
        GLOO_SOCKET_IFNAME="lo", LOCAL_WORLD_SIZE=str(size), LOCAL_RANK=str(rank),
    )  # fmt: skip
    torch.set_num_threads(1)
    try:
        pickled = pickle.dumps(function(rank, *arguments))  # plain bytes: no shared memory is left open
    except BaseException:
        queue.put((rank, None))
        raise
    queue.put((rank, pickled))


def _connected(rank: int, function: Callable[..., Any], *arguments: Any) -> Any:
    world = World.connect(CPU, 60.0)
    outcome = function(world, *arguments)
    world.close()
    return outcome


def in_world(size: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """function(world, *arguments) on every rank of a fresh world; its results (plain data) in rank order."""
    return in_processes(size, _connected, function, *arguments)


def in_processes(size: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """function(rank, *arguments) in W processes with a launcher's environment; its results in rank order."""
    ranks, queue = _start(size, function, arguments)
    results = dict(queue.get() for _ in range(size))
    for process in ranks:
        process.join(60)
        assert process.exitcode == 0
    return [pickle.loads(results[r]) for r in range(size)]


def trained(
    rank: int, recipe: str, overrides: Sequence[str], data: Path | None, out: Path, resume: Resume = "no"
) -> dict[str, Any]:
    """The result of `batchscale train`, of this process or, in `in_processes`, of one of W."""
    result = batchscale.train(recipe, overrides, data_folder=data, out=out, resume=resume, quiet=True)
    return dict(result.model_dump())


def endings(size: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """function(rank, *arguments) in W processes that may die of it: in rank order a result, else an exit code."""
    ranks, queue = _start(size, function, arguments)
    try:
        for process in ranks:
            process.join()
        results = {}
        while not queue.empty():
            rank, pickled = queue.get()
            results[rank] = pickled
        return [pickle.loads(results[r]) if results.get(r) else ranks[r].exitcode for r in range(size)]
    finally:
        for process in ranks:
            process.kill()


def survivors(size: int, dead: int, function: Callable[..., Any], *arguments: Any) -> dict[int, Any]:
    """function(rank, *arguments) in W processes of which `dead` end or stop: what the others say, by rank."""
    ranks, queue = _start(size, function, arguments)
    outcomes: dict[int, Any] = {}
    try:
        while len(outcomes) < size - dead:
            ended = [process.exitcode for process in ranks]  # before the queue is asked: what they said is there
            if not queue.empty():
                rank, pickled = queue.get()
                outcomes[rank] = pickled and pickle.loads(pickled)
            elif sum(code is not None for code in ended) > len(outcomes) + dead:
                raise AssertionError(f"ranks ended without a word: exit codes {ended}, outcomes {outcomes}")
            else:
                time.sleep(0.05)
        return outcomes
    finally:
        for process in ranks:
            process.kill()
            process.join()


def _start(size: int, function: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[list[Any], Any]:
    queue = _CONTEXT.SimpleQueue()
    shared = (free_port(), dict(os.environ), function, arguments, queue)
    ranks = [_CONTEXT.Process(target=_enter, args=(rank, size, *shared)) for rank in range(size)]
    for process in ranks:
        process.start()
    return ranks, queue
