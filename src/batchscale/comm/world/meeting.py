"""Where all processes meet first: the store that the launcher's variables name; what to do where it cannot be had."""

from __future__ import annotations

import os
import socket
import threading
import time
from datetime import timedelta
from typing import Any

from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

from batchscale.comm.world.diagnosis import first_line
from batchscale.comm.world.rendezvous import Alone, agree_on_name
from batchscale.comm.world.store import come
from batchscale.errors import ProcessError, UsageError
from batchscale.system.launcher import by_agent, described, of_cluster, way_out, world_told

JOB = "batchscale"  # before the keys of a job that are of no attempt in particular
_KEPT = "kept-by-rank-0"  # the key by which rank 0's store is told from another program's
_ANSWER_SECONDS, _ANSWER_SECONDS_PER_RANK = 10.0, 0.005  # for a store that is there to answer a rank, of W at once
_KNOCK_SECONDS = (0.05, 1.0)  # between two looks whether it is there: the first pause, and the longest
_MISTAKE_SECONDS = 30.0  # for ranks with a mistake to meet: as long as two may differ in loading torch
_joined: list[str] = []  # where this process has met others


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
        Alone: nobody listens there in time.
        RuntimeError: rank 0 cannot listen there, or what listens is no store of rank 0's.
    """
    agents = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    keeps = rank == 0 and not agents
    if not keeps and (reason := _unreached(timeout_seconds)):
        sentence = f"nothing answers at {_place()} in {timeout_seconds:g} s ({reason})"
        why = "rank 0 has not started there, or cannot be reached"
        raise Alone(f"connecting (rank {rank} of {size}): {sentence}: {why}", leaderless=True)
    seconds = _ANSWER_SECONDS + _ANSWER_SECONDS_PER_RANK * size
    store = _opened(keeps, timeout_seconds if keeps else seconds)
    store.set_timeout(timedelta(seconds=timeout_seconds))
    task = of_cluster()
    if task is not None:  # where another job has the port, its store is not to hear of this one's ranks
        store = PrefixStore(f"{task.names[0]} {task.job}", store)
    if keeps:
        store.set(_KEPT, "")
    elif not agents and not come(store, [_KEPT], seconds):
        raise RuntimeError(_no_store(seconds))
    _joined.append(_place())
    return store


def joined() -> bool:
    """Whether this process has once joined the store: what is wrong then, all of a world learn by themselves."""
    return bool(_joined)


def tell_mistake(sentence: str) -> bool:
    """Bring to the others, who meet just now, the reason why this process cannot begin; whether rank 0 says it.

    Args:
        sentence: of the mistake.
    """
    rank, size = world_told()
    try:
        store: Any = PrefixStore(JOB, join_store(rank, size, _MISTAKE_SECONDS))
        agree_on_name(store, rank, size, _MISTAKE_SECONDS, mistake=(socket.gethostname(), sentence))
    except UsageError:  # the one that rank 0 says for all
        return True
    except (RuntimeError, OSError, ProcessError):
        return False
    return False


def _place() -> str:
    return f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"


def _no_store(seconds: float) -> str:
    return (
        f"what listens at {_place()} did not answer as the store of rank 0 in {seconds:.0f} s: another program has the "
        "port; set MASTER_PORT to a free one, for every process alike"
    )


def _unreached(seconds: float) -> str:
    """Why nothing listens at rank 0's address when time is up; "" once something does.

    So it is asked before torch is, which says a line of its own whenever it finds nobody.
    """
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    deadline, pause = time.monotonic() + seconds, _KNOCK_SECONDS[0]
    while True:
        try:
            left = max(deadline - time.monotonic(), 0.1)
            with socket.create_connection((address, port), timeout=min(left, _ANSWER_SECONDS)) as knock:
                if knock.getsockname() != knock.getpeername():  # a port of outgoing connections may meet itself
                    return ""
                reason = "Connection refused"
        except OSError as error:
            reason = error.strerror or first_line(error)
        if time.monotonic() + pause > deadline:
            return reason
        time.sleep(pause)
        pause = min(2 * pause, _KNOCK_SECONDS[1])


def _opened(keeps: bool, seconds: float) -> Any:
    """The store at rank 0's address: a new one that this process keeps, or the one that is there."""
    outcome: list[Any] = []

    def connect() -> None:
        try:
            store = TCPStore(
                os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=keeps, wait_for_workers=False,
                timeout=timedelta(seconds=seconds), multi_tenant=keeps,
                use_libuv=os.environ.get("USE_LIBUV", "1") == "1",
            )  # fmt: skip
            outcome.append(store)
        except RuntimeError as error:
            outcome.append(error)

    # In a thread: torch 2.15 waits without end for a program that has the port and is no store.
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(seconds)
    if outcome and not isinstance(outcome[0], RuntimeError):
        return outcome[0]
    if keeps and outcome:
        raise outcome[0]
    raise RuntimeError(_no_store(seconds)) from (outcome[0] if outcome else None)


def remedy(error: ProcessError) -> str:
    """What to do about a world that did not come to be; "" where a launcher will say more, or nothing is to be added.

    Args:
        error: that it ended in.
    """
    sentence = str(error)
    if "EADDRINUSE" in sentence:
        port = os.environ["MASTER_PORT"]
        return f"another program has port {port} of this host: set MASTER_PORT to a free one, for every process alike"
    if "connectFullMesh" in sentence and "GLOO_SOCKET_IFNAME" not in os.environ:
        names = ", ".join(name for _, name in socket.if_nameindex())
        return (
            "a host did not reach another, as where its name resolves to 127.0.1.1: set GLOO_SOCKET_IFNAME, and "
            f"NCCL_SOCKET_IFNAME, to the interface between the hosts ({socket.gethostname()} has {names})"
        )
    return f"as told by {described()}: {way_out()}" if isinstance(error, Alone) and not by_agent() else ""
