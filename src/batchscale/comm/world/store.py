"""The store of a job: a few requests a rank, whatever the number of ranks, and ranks in words.

One server answers all ranks one after another, some 20,000 to 100,000 requests a second. So nobody polls and not
everyone asks for everyone: a rank blocks until what it waits for is there, and one rank reads for all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Protocol

_MOST_PIECES = 16  # of a list of ranks in words
_SHORTEST_RANGE = 4  # 1, 2, 3 but 1-4


class Store(Protocol):
    """The part of torch.distributed.Store that is used here."""

    def set(self, key: str, value: str, /) -> None: ...
    def get(self, key: str, /) -> bytes: ...
    def add(self, key: str, amount: int, /) -> int: ...
    def check(self, keys: list[str], /) -> bool: ...
    def wait(self, keys: list[str], timeout: timedelta, /) -> None: ...
    def multi_get(self, keys: list[str], /) -> list[bytes]: ...
    def multi_set(self, keys: list[str], values: list[str], /) -> None: ...
    def has_extended_api(self) -> bool: ...


def come(store: Store, keys: list[str], seconds: float) -> bool:
    """Block until all keys are there; whether they are, when time is up.

    Args:
        store: may be shared by many.
        keys: none is there at once.
        seconds: how long at most.
    """
    if not keys:
        return True
    try:
        store.wait(keys, timedelta(seconds=max(seconds, 0.001)))  # for 0 the store waits without end
    except RuntimeError as error:  # a file's is no DistStoreError
        if "imeout" not in str(error):  # a lost connection
            raise
        return False
    return True


def read_all(store: Store, keys: list[str]) -> list[bytes]:
    """The values of keys that are all there: one request where the store can (a file cannot)."""
    return store.multi_get(keys) if store.has_extended_api() else [store.get(key) for key in keys]


def write_all(store: Store, keys: list[str], values: list[str]) -> None:
    """Set keys to values: one request where the store can."""
    if store.has_extended_api():
        store.multi_set(keys, values)
        return
    for key, value in zip(keys, values, strict=True):
        store.set(key, value)


def absent(store: Store, keys: list[str], deadline: float, clock: Callable[[], float]) -> tuple[list[int], bool]:
    """The places of the keys that are not there, lowest first, and whether these are all.

    Halving: f missing of W cost about 2 f log2(W / f) + 1 requests, at most 2 W - 1.

    Args:
        store: asked whether all of several keys are there.
        keys: W of them.
        deadline: of ``clock``; after it the search ends as soon as it has one.
        clock: in seconds.
    """
    places: list[int] = []
    spans = [(0, len(keys))]
    while spans:
        if places and clock() > deadline:
            return places, False
        first, end = spans.pop()
        if store.check(keys[first:end]):
            continue
        if end - first == 1:
            places.append(first)
        else:
            middle = (first + end) // 2
            spans += [(middle, end), (first, middle)]
    return places, True


def spans_of(ranks: Sequence[int]) -> list[tuple[int, int]]:
    """Ranks as first and last of each unbroken run: 3, 17, 18, 19 are (3, 3), (17, 19)."""
    spans: list[tuple[int, int]] = []
    for rank in sorted(set(ranks)):
        if spans and spans[-1][1] == rank - 1:
            spans[-1] = (spans[-1][0], rank)
        else:
            spans.append((rank, rank))
    return spans


def in_words(ranks: Sequence[int]) -> str:
    """``rank 3, 17-20``; nothing for no rank; of very many the first, and how many more."""
    pieces: list[tuple[str, int]] = []
    for first, last in spans_of(ranks):
        if last - first + 1 >= _SHORTEST_RANGE:
            pieces.append((f"{first}-{last}", last - first + 1))
        else:
            pieces += [(str(rank), 1) for rank in range(first, last + 1)]
    more = sum(count for _, count in pieces[_MOST_PIECES:])
    words = ", ".join(piece for piece, _ in pieces[:_MOST_PIECES])
    return f"rank {words}{f' and {more} more' if more else ''}" if pieces else ""
