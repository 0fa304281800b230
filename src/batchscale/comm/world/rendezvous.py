"""One fresh name for one attempt of a process group, on a store that earlier attempts have written to.

The elastic agent keeps its store across restarts. Ranks of a new attempt would read addresses that the last
one left there (connectFullMesh fails, or hangs), and neither the restart count nor the world size is unique
when hosts come and go. So rank 0 gathers a nonce from everyone and commits a name that names them all.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Sequence

from torch.distributed import DistNetworkError

from batchscale.comm.world.diagnosis import first_line, settle_seconds
from batchscale.comm.world.store import Store, absent, come, in_words, read_all, write_all
from batchscale.errors import ProcessError, UsageError
from batchscale.words import counted

_REFUSED, _MISTAKEN = "refused: ", "mistaken: "  # in place of a name: the reason why there is none
_MOST_HOSTS = 3  # in words


class Alone(ProcessError):
    """Nobody else was met: what speaks of other processes may be left over."""


def agree_on_name(
    store: Store,
    rank: int,
    size: int,
    timeout_seconds: float,
    clock: Callable[[], float] = time.monotonic,
    mistake: tuple[str, str] | None = None,
) -> str:
    """The same fresh name on every rank of this attempt, and on none of an earlier one.

    Every rank says hello with a nonce. Rank 0 reads all nonces and answers each, under a key that only its owner
    waits for, with a name; commits the name when all have acknowledged it; and makes a new one when a nonce has
    changed meanwhile: one that an earlier attempt had left, or a rank that was started anew.

    Cost: 6 requests a rank and O(1) bytes; of rank 0, 7 requests and O(W) bytes.

    Args:
        store: shared by all ranks, possibly used before.
        rank, size: of this attempt.
        timeout_seconds: bound on the whole; the others give rank 0 a little more, to say who is missing.
        clock: in seconds.
        mistake: this rank's host, and why it cannot begin; None where it can.

    Raises:
        UsageError: ranks came with mistakes; says whose, on all alike.
        ProcessError: not everyone arrived in time, or the store is gone.
    """
    nonce = uuid.uuid4().hex + (f" {json.dumps(mistake)}" if mistake else "")
    deadline = clock() + timeout_seconds
    try:
        store.set(f"hello/{rank}", nonce)
        if rank == 0:
            return _name_all(store, size, deadline, timeout_seconds, clock)
        return _take_name(store, rank, size, nonce, deadline + settle_seconds(size), timeout_seconds, clock)
    except DistNetworkError as error:
        gone = f"the store of the job, which rank 0 or the launcher keeps, is gone ({first_line(error)})"
        raise ProcessError(f"start of {counted(size, 'process')}: {gone}", leaderless=True) from error


def _patience_seconds(size: int) -> float:
    """How long to wait before looking whether a nonce or a name has changed; a start without faults is done by then."""
    return 0.05 + 0.001 * size


def _name_all(store: Store, size: int, deadline: float, timeout_seconds: float, clock: Callable[[], float]) -> str:
    hellos = [f"hello/{rank}" for rank in range(size)]
    late = f"did not arrive in {timeout_seconds:g} s"
    if not come(store, hellos, deadline - clock()):
        missing, _ = absent(store, hellos, clock() + settle_seconds(size), clock)
        if missing:
            raise _refused(store, size, missing, f"{in_words(missing)} {late}")
    seen: list[bytes] = []
    while True:
        nonces = read_all(store, hellos)
        if sentence := _mistakes(nonces):
            _answer_all(store, size, range(1, size), _MISTAKEN + sentence)
            raise UsageError(sentence)
        if nonces != seen:
            seen, name = nonces, uuid.uuid4().hex
            acknowledged = [f"acknowledged/{name}/{rank}" for rank in range(1, size)]
            write_all(store, [f"name-of/{nonce.decode()}" for nonce in nonces], [name] * size)
        if come(store, acknowledged, _patience_seconds(size)):
            store.set(f"commit/{name}", "1")
            return name
        if clock() >= deadline:  # whoever is missing now has left a hello in an earlier attempt, or died since
            missing = [1 + place for place in absent(store, acknowledged, clock() + settle_seconds(size), clock)[0]]
            if missing:
                raise _refused(store, size, missing, f"{in_words(missing)} {late}")


def _refused(store: Store, size: int, missing: list[int], reason: str) -> ProcessError:
    """Tell those who are there why there will be no name, and give them time to read it: the store may be rank 0's."""
    present = [rank for rank in range(1, size) if rank not in set(missing)]
    _answer_all(store, size, present, _REFUSED + reason)
    return _not_begun(size, reason, ProcessError if present else Alone)


def _answer_all(store: Store, size: int, ranks: Sequence[int], answer: str) -> None:
    """One answer to ranks that are there, and the time to read it."""
    if ranks:
        nonces = [nonce.decode() for nonce in read_all(store, [f"hello/{rank}" for rank in ranks])]
        write_all(store, [f"name-of/{nonce}" for nonce in nonces], [answer] * len(nonces))
        come(store, [f"heard/{nonce}" for nonce in nonces], settle_seconds(size))


def _mistakes(hellos: list[bytes]) -> str:
    """What ranks have brought in place of their readiness, each sentence once; "" where all are ready."""
    ranks: dict[str, list[int]] = {}
    hosts: dict[str, dict[str, None]] = {}
    for rank, hello in enumerate(hellos):
        _, _, mistake = hello.decode().partition(" ")
        if mistake:
            host, sentence = json.loads(mistake)
            ranks.setdefault(sentence, []).append(rank)
            hosts.setdefault(sentence, {})[host] = None
    if len(hellos) in map(len, ranks.values()):  # everyone's: then it is nobody's in particular
        return next(iter(ranks))
    return "; ".join(f"{in_words(those)} ({_named(list(hosts[text]))}): {text}" for text, those in ranks.items())


def _named(hosts: list[str]) -> str:
    more = f" and {len(hosts) - _MOST_HOSTS} more" if len(hosts) > _MOST_HOSTS else ""
    return f"host {', '.join(hosts[:_MOST_HOSTS])}{more}"


def _take_name(
    store: Store, rank: int, size: int, nonce: str, deadline: float, timeout_seconds: float, clock: Callable[[], float]
) -> str:
    acknowledged = ""
    while come(store, [f"name-of/{nonce}"], deadline - clock()):
        name = store.get(f"name-of/{nonce}").decode()
        if name.startswith(_REFUSED):
            store.set(f"heard/{nonce}", "1")
            raise _not_begun(size, name.removeprefix(_REFUSED))
        if name.startswith(_MISTAKEN):
            store.set(f"heard/{nonce}", "1")
            raise UsageError(name.removeprefix(_MISTAKEN))
        if name != acknowledged:
            store.set(f"acknowledged/{name}/{rank}", "1")
            acknowledged = name
        if come(store, [f"commit/{name}"], min(_patience_seconds(size), deadline - clock())):
            return name
        if clock() >= deadline:
            break
    arrived = store.check(["hello/0"])  # possibly in an earlier attempt
    silent = "nothing was heard from rank 0" if arrived else "rank 0 did not arrive"
    raise _not_begun(size, f"{silent} in {timeout_seconds:g} s", leaderless=True)


def _not_begun(
    size: int, reason: str, kind: type[ProcessError] = ProcessError, leaderless: bool = False
) -> ProcessError:
    return kind(f"start of {counted(size, 'process')}: {reason}", leaderless=leaderless)
