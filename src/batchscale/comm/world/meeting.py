"""Where all processes meet first: the store that the launcher's variables name; what to do where it cannot be had."""

from __future__ import annotations

import os
import socket
import threading
from datetime import timedelta
from typing import Any

from torch.distributed import PrefixStore  # type: ignore[attr-defined]
from torch.distributed.rendezvous import rendezvous

from batchscale.errors import UsageError
from batchscale.system.launcher import by_agent, described, of_cluster, way_out

_MARGIN_SECONDS = 5.0  # beyond torch's own time-out, whose error is the better one


def check_address() -> None:
    """Raise where MASTER_ADDR is no address: torch would ask for it again and again until its time-out.

    Raises:
        UsageError: names it.
    """
    address = os.environ["MASTER_ADDR"]
    try:
        socket.getaddrinfo(address, None)
    except socket.gaierror as error:
        if error.errno == socket.EAI_AGAIN:  # the name service does not answer yet
            return
        raise UsageError(
            f"MASTER_ADDR={address}: does not resolve on {socket.gethostname()} ({error.strerror}); "
            "set it to an address of rank 0's host that all hosts reach"
        ) from None


def join_store(rank: int, size: int, timeout_seconds: float) -> Any:
    """The store of all processes, which rank 0 (or the agent) keeps.

    Args:
        rank, size: of this process, and W.
        timeout_seconds: bound on the whole.

    Raises:
        RuntimeError: it is not there in time.
    """
    outcome: list[Any] = []

    def connect() -> None:
        try:
            outcome.append(next(rendezvous("env://", rank, size, timeout=timedelta(seconds=timeout_seconds)))[0])
        except RuntimeError as error:
            outcome.append(error)

    # In a thread: torch 2.15 waits without end for a program that has the port and is no store.
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(timeout_seconds + _MARGIN_SECONDS)
    if not outcome:
        place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise RuntimeError(f"what listens at {place} did not answer as a store in {timeout_seconds:g} s")
    if isinstance(outcome[0], RuntimeError):
        raise outcome[0]
    task = of_cluster()
    # Where another job has the port, its store is not to hear of this one's ranks.
    return outcome[0] if task is None else PrefixStore(f"{task.names[0]} {task.job}", outcome[0])


def remedy(sentence: str) -> str:
    """What to do about a world that did not come to be; "" where a launcher will say more.

    Args:
        sentence: the error.
    """
    if "EADDRINUSE" in sentence:
        port = os.environ["MASTER_PORT"]
        return f"another program has port {port} of this host: set MASTER_PORT to a free one, for every process alike"
    if "connectFullMesh" in sentence and "GLOO_SOCKET_IFNAME" not in os.environ:
        names = ", ".join(name for _, name in socket.if_nameindex())
        return (
            "a host did not reach another, as where its name resolves to 127.0.1.1: set GLOO_SOCKET_IFNAME, and "
            f"NCCL_SOCKET_IFNAME, to the interface between the hosts ({socket.gethostname()} has {names})"
        )
    return "" if by_agent() else f"as told by {described()}: {way_out()}"
