"""One fresh name for one attempt of a process group, on a store that earlier attempts have written to.

The elastic agent keeps its store across restarts. Ranks of a new attempt would read addresses that the last
one left there (connectFullMesh fails, or hangs), and neither the restart count nor the world size is unique
when hosts come and go. So rank 0 gathers a nonce from everyone and commits a name that names them all.
"""

from __future__ import annotations

import json
import time
import uuid
from typing import Protocol

from batchscale.errors import ProcessError
from batchscale.words import counted


class Store(Protocol):
    """The part of torch.distributed.Store that is used here."""

    def set(self, key: str, value: str, /) -> None: ...
    def get(self, key: str, /) -> bytes: ...
    def add(self, key: str, amount: int, /) -> int: ...
    def check(self, keys: list[str], /) -> bool: ...


def agree_on_name(store: Store, rank: int, size: int, timeout_seconds: float) -> str:
    """The same fresh name on every rank of this attempt, and on none of an earlier one.

    Every rank writes a nonce; rank 0 proposes a name with all nonces it reads; a rank acknowledges only a
    proposal that holds its own nonce; rank 0 commits when all acknowledged, and proposes again when a nonce
    changes. Steps: 3 store round trips and the polling.

    Args:
        store: shared by all ranks, possibly used before.
        rank, size: of this attempt.
        timeout_seconds: bound on the whole.

    Raises:
        ProcessError: not everyone arrived in time.
    """
    nonce = uuid.uuid4().hex
    store.set(f"hello/{rank}", nonce)
    deadline = time.monotonic() + timeout_seconds
    proposed, acknowledged = "", ""
    seen: list[str] = []
    while time.monotonic() < deadline:
        if rank == 0 and store.check([f"hello/{r}" for r in range(size)]):
            nonces = [store.get(f"hello/{r}").decode() for r in range(size)]
            if nonces != seen:  # someone has come since, over the nonce that an earlier attempt left
                seen, proposed = nonces, uuid.uuid4().hex
                store.set("proposal", json.dumps({"name": proposed, "nonces": nonces}))
            if store.add(f"acknowledged/{proposed}", 0) == size:  # adding 0 reads, and makes, the count
                store.set(f"commit/{proposed}", "1")
        if store.check(["proposal"]):
            proposal = json.loads(store.get("proposal"))
            name = str(proposal["name"])
            # With this rank's nonce in it, the proposal cannot be one of an earlier attempt.
            if name != acknowledged and len(proposal["nonces"]) == size and proposal["nonces"][rank] == nonce:
                store.add(f"acknowledged/{name}", 1)
                acknowledged = name
            if acknowledged and store.check([f"commit/{acknowledged}"]):
                return acknowledged
        time.sleep(0.01)
    arrived = [r for r in range(size) if store.check([f"hello/{r}"])]
    missing = sorted(set(range(size)) - set(arrived))
    raise ProcessError(
        f"start of {counted(size, 'process')}: rank {missing or 'unknown'} did not arrive in {timeout_seconds:g} s"
    )
