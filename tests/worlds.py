"""Real worlds of W processes for tests, and small training parts to run in them."""

from __future__ import annotations

import os
import pickle
import socket
from collections.abc import Callable
from typing import Any

import torch
from torch import multiprocessing

from batchscale.comm import World

CPU = torch.device("cpu")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _enter(
    rank: int, size: int, port: int, function: Callable[..., Any], arguments: tuple[Any, ...], queue: Any
) -> None:
    os.environ.update(
        RANK=str(rank), WORLD_SIZE=str(size), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), GLOO_SOCKET_IFNAME="lo",
        LOCAL_WORLD_SIZE=str(size), LOCAL_RANK=str(rank),
    )  # fmt: skip
    torch.set_num_threads(1)
    world = World.connect(CPU, 60.0)
    queue.put((rank, pickle.dumps(function(world, *arguments))))  # plain bytes: no shared memory is left open
    world.close()


def in_world(size: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """function(world, *arguments) on every rank of a fresh world; its results (plain data) in rank order."""
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    port = free_port()
    ranks = [context.Process(target=_enter, args=(r, size, port, function, arguments, queue)) for r in range(size)]
    for process in ranks:
        process.start()
    results = dict(queue.get() for _ in range(size)) if _alive(ranks) else {}
    for process in ranks:
        process.join(60)
        assert process.exitcode == 0
    return [pickle.loads(results[r]) for r in range(size)]


def _alive(ranks: list[Any]) -> bool:
    return all(process.exitcode in (None, 0) for process in ranks)
