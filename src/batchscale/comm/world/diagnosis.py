"""Why an exchange failed: who died, who is silent, who brought something else.

The first rank that fails hangs up, so that the failure runs through the whole world at once; then everyone tells the
store what it was doing, waits up to `SETTLE_SECONDS` for the others to do so, and compares. Nothing of this costs an
exchange that succeeds.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any, cast

import torch
import torch.distributed as dist

HUNG = "did not answer within"  # the words for a process that is there and silent
SETTLE_SECONDS = 3.0  # after a failed exchange: how long the living get at most to say that they are alive
_POLL_SECONDS = 0.02
_NOBODY_SENDS = 2**31 - 1  # a tag that no exchange uses


@dataclass(frozen=True)
class Doing:
    """What a rank was in when its exchange failed.

    Args:
        what: the exchange, in words.
        brought: length and type of its tensor.
        call: which call of its kind it was.
        timed_out: whether it had waited in vain, in place of being hung up on.
    """

    what: str
    brought: str = ""
    call: int = 0
    timed_out: bool = False


def first_line(error: BaseException) -> str:
    """The error in one line."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def diagnose(store: Any, group: Any, rank: int, size: int, timeout_seconds: float, doing: Doing, reason: str) -> str:
    """Ask through the store who is alive and in what, and say it in words.

    Args:
        store: shared by all ranks, or None before there is one.
        group: the Gloo group to hang up, or None before there is one.
        rank, size: of this process, and W.
        timeout_seconds: the bound that a silent rank overran.
        doing: what this rank was in.
        reason: the backend's, in one line.
    """
    if store is None:
        return reason
    if group is not None:
        _hang_up(group, rank)
    answers = _ask(store, rank, size, doing)
    if not answers:
        silent, hung = "rank 0 or the launcher, whichever keeps the store of the job,", doing.timed_out
    else:
        silent = _names([r for r in range(size) if r not in answers])
        hung = any(answer.timed_out for answer in answers.values())
    if silent:
        return f"{silent} {f'{HUNG} {timeout_seconds:g} s' if hung else 'died'} ({reason})"
    return _differences(answers, doing) or reason


def tell(store: Any, rank: int, doing: Doing) -> None:
    """Tell the store what this rank was in, for others to compare."""
    with contextlib.suppress(Exception):  # the store is gone with its host
        store.set(f"alive/{rank}", json.dumps(asdict(doing)))


def _hang_up(group: Any, rank: int) -> None:
    """Close this rank's connections: a receive that times out makes Gloo do so, and every peer's wait then fails."""
    for peer in range(dist.get_world_size(group)):
        if peer != rank:
            with contextlib.suppress(RuntimeError):  # the time-out, and afterwards that the connection is closed
                work = dist.irecv(torch.empty(1), group=group, tag=_NOBODY_SENDS, group_src=peer)
                cast(dist.Work, work).wait(timedelta(milliseconds=1))


def _ask(store: Any, rank: int, size: int, doing: Doing) -> dict[int, Doing]:
    """What everyone who is alive tells, this rank included; nothing where the store is gone or hangs."""
    answers: dict[int, Doing] = {}
    answered = threading.Event()

    def ask() -> None:
        with contextlib.suppress(Exception):  # the store is gone with its host
            store.set(f"alive/{rank}", json.dumps(asdict(doing)))
            deadline = time.monotonic() + SETTLE_SECONDS
            while len(answers) < size and time.monotonic() < deadline:
                for peer in set(range(size)) - set(answers):
                    if store.check([f"alive/{peer}"]):
                        answers[peer] = Doing(**json.loads(store.get(f"alive/{peer}")))
                time.sleep(_POLL_SECONDS)
            readers = store.add("alive/readers", 1)
            while rank == 0 and readers < len(answers) and time.monotonic() < deadline + SETTLE_SECONDS:
                time.sleep(_POLL_SECONDS)  # the store may be this process's: it must not end before all have read
                readers = store.add("alive/readers", 0)
            answered.set()

    # A thread, because a store whose host is stopped never returns; it is left behind then.
    threading.Thread(target=ask, daemon=True).start()
    answered.wait((2 if rank == 0 else 1) * SETTLE_SECONDS + 0.5)
    return answers if answered.is_set() else {}


def _differences(answers: Mapping[int, Doing], doing: Doing) -> str:
    others: dict[tuple[str, str], list[int]] = {}
    for rank, other in answers.items():
        if other.what != doing.what:
            others.setdefault((f"in {other.what}", f"in {doing.what}"), []).append(rank)
        elif other.brought != doing.brought:
            others.setdefault((f"brought {other.brought}", doing.brought), []).append(rank)
        elif other.call != doing.call:
            others.setdefault((f"at call {other.call}", f"at call {doing.call}"), []).append(rank)
    return "; ".join(f"{_names(ranks)} {theirs}, this rank {ours}" for (theirs, ours), ranks in others.items())


def _names(ranks: list[int]) -> str:
    return f"rank {', '.join(map(str, sorted(set(ranks))))}" if ranks else ""
