"""One fresh name for one attempt of a process group, on a store that earlier attempts have written to.

The elastic agent keeps its store across restarts. Ranks of a new attempt would read addresses that the last
one left there (connectFullMesh fails, or hangs), and neither the restart count nor the world size is unique
when hosts come and go. So rank 0 gathers a nonce from everyone and commits a name that names them all.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable

from torch.distributed import DistNetworkError

from batchscale.comm.world.diagnosis import first_line, settle_seconds
from batchscale.comm.world.store import Store, absent, come, in_words, read_all, write_all
from batchscale.errors import ProcessError
from batchscale.words import counted

_REFUSED = "refused: "  # in place of a name: the reason why there is none


def agree_on_name(
    store: Store, rank: int, size: int, timeout_seconds: float, clock: Callable[[], float] = time.monotonic
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

    Raises:
        ProcessError: not everyone arrived in time, or the store is gone.
    """
    nonce = uuid.uuid4().hex
    deadline = clock() + timeout_seconds
    try:
        store.set(f"hello/{rank}", nonce)
        if rank == 0:
            return _name_all(store, size, deadline, timeout_seconds, clock)
        return _take_name(store, rank, size, nonce, deadline + settle_seconds(size), timeout_seconds, clock)
    except DistNetworkError as error:
        gone = f"the store of the job, which rank 0 or the launcher keeps, is gone ({first_line(error)})"
        raise ProcessError(f"start of {counted(size, 'process')}: {gone}") from error


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
    if present:
        nonces = [nonce.decode() for nonce in read_all(store, [f"hello/{rank}" for rank in present])]
        write_all(store, [f"name-of/{nonce}" for nonce in nonces], [_REFUSED + reason] * len(nonces))
        come(store, [f"heard/{nonce}" for nonce in nonces], settle_seconds(size))
    return _not_begun(size, reason)


def _take_name(
    store: Store, rank: int, size: int, nonce: str, deadline: float, timeout_seconds: float, clock: Callable[[], float]
) -> str:
    acknowledged = ""
    while come(store, [f"name-of/{nonce}"], deadline - clock()):
        name = store.get(f"name-of/{nonce}").decode()
        if name.startswith(_REFUSED):
            store.set(f"heard/{nonce}", "1")
            raise _not_begun(size, name.removeprefix(_REFUSED))
        if name != acknowledged:
            store.set(f"acknowledged/{name}/{rank}", "1")
            acknowledged = name
        if come(store, [f"commit/{name}"], min(_patience_seconds(size), deadline - clock())):
            return name
        if clock() >= deadline:
            break
    arrived = store.check(["hello/0"])  # possibly in an earlier attempt
    silent = "nothing was heard from rank 0" if arrived else "rank 0 did not arrive"
    raise _not_begun(size, f"{silent} in {timeout_seconds:g} s")


def _not_begun(size: int, reason: str) -> ProcessError:
    return ProcessError(f"start of {counted(size, 'process')}: {reason}")
