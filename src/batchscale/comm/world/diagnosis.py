"""Why an exchange failed: who died, who is silent, who brought something else.

The first rank that fails hangs up, so that the failure runs through the whole world at once; then everyone tells the
store what it was doing. The first to do so waits for the others, up to `settle_seconds`, reads for all who is there and
in what, and publishes it; the others read that. Nothing of this costs an exchange that succeeds.

Cost: 6 requests a rank and O(1) bytes; of the one that reads, 6 requests and those that find f silent of W by halving
(`absent`), and O(W) bytes.
"""

from __future__ import annotations

import contextlib
import json
import queue
import re
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from batchscale.comm.world.gloo import hang_up
from batchscale.comm.world.store import Store, absent, come, in_words, read_all, spans_of

HUNG = "did not answer within"  # the words for a process that is there and silent
FAILED = "failed: "  # before an error of one rank's own, in place of an exchange
_OF_THE_BUILD = re.compile(r"\[/[^\]]*\.(cc|cpp|h):\d+\] ")  # where Gloo's source lay, before its words
SETTLE_SECONDS = 3.0  # after a failed exchange: how long the living get at most to say that they are alive
_SETTLE_SECONDS_PER_RANK = 0.005  # the store answers all of them one after another


@dataclass(frozen=True)
class Doing:
    """What a rank was in when its exchange failed.

    Args:
        what: the exchange, in words.
        brought: length and type of its tensor.
        call: which call of its kind it was.
        timed_out: whether it had waited in vain, in place of being hung up on.
        seconds: how long it had waited then; of ranks in the same, one's stands for all.
    """

    what: str
    brought: str = ""
    call: int = 0
    timed_out: bool = False
    seconds: float = field(default=0.0, compare=False)


@dataclass(frozen=True)
class Verdict:
    """What the store knows of all ranks after a failed exchange.

    Args:
        groups: what ranks were in, and which these are.
        silent: the ranks that told nothing.
        whole: whether these are all; else the store was too slow to look for more.
    """

    groups: list[tuple[Doing, list[int]]]
    silent: list[int]
    whole: bool

    def to_json(self) -> str:
        """With runs of ranks as their first and last: O(1) bytes where few ranks differ."""
        groups = [[asdict(doing), spans_of(ranks)] for doing, ranks in self.groups]
        return json.dumps({"groups": groups, "silent": spans_of(self.silent), "whole": self.whole})

    @classmethod
    def from_json(cls, text: str | bytes) -> Verdict:
        """The inverse."""
        fields = json.loads(text)
        groups = [(Doing(**doing), _ranks(spans)) for doing, spans in fields["groups"]]
        return cls(groups, _ranks(fields["silent"]), fields["whole"])


def settle_seconds(size: int) -> float:
    """How long the living get at most, after a failed exchange of W ranks, to say that they are alive."""
    return SETTLE_SECONDS + _SETTLE_SECONDS_PER_RANK * size


def first_line(error: BaseException) -> str:
    """The error in one line, without where its source lay."""
    return _OF_THE_BUILD.sub("", str(error).splitlines()[0]) if str(error) else type(error).__name__


def diagnose(
    store: Any, group: Any, rank: int, size: int, timeout_seconds: float, doing: Doing, reason: str
) -> tuple[str, bool]:
    """Ask through the store who is alive and in what, and say it in words; also, whether rank 0 is lost.

    Args:
        store: shared by all ranks, or None before there is one.
        group: the Gloo group to hang up, or None before there is one.
        rank, size: of this process, and W.
        timeout_seconds: the bound that a silent rank overran, where nobody tells how long it waited.
        doing: what this rank was in.
        reason: the backend's, in one line.
    """
    if store is None:
        return reason, False
    if group is not None:
        hang_up(group, rank)
    verdict = _ask_in_time(store, rank, size, doing)
    waited = doing.seconds
    if verdict is None:
        silent, hung = "rank 0 or the launcher, whichever keeps the store of the job,", doing.timed_out
    else:
        silent = in_words([other for other in verdict.silent if other != rank])  # itself: it came too late
        silent = silent if verdict.whole or not silent else f"at least {silent}"
        hung = doing.timed_out or any(other.timed_out for other, _ in verdict.groups)
        waited = max(waited, *(other.seconds for other, _ in verdict.groups), 0.0)
    if silent:
        lost = verdict is None or (0 in verdict.silent and rank != 0)
        return f"{silent} {f'{HUNG} {waited or timeout_seconds:g} s' if hung else 'died'} ({reason})", lost
    return (_differences(verdict, doing) if verdict else "") or reason, False


def tell(store: Any, rank: int, doing: Doing) -> None:
    """Tell the store what this rank was in, for others to compare."""
    with contextlib.suppress(Exception):  # the store is gone with its host
        store.set(f"alive/{rank}", json.dumps(asdict(doing)))


def _ask_in_time(store: Any, rank: int, size: int, doing: Doing) -> Verdict | None:
    """What `ask` finds, or None where the store is gone or hangs."""
    answered, verdicts = threading.Event(), queue.SimpleQueue[Verdict | None]()

    def put_verdict() -> None:
        try:
            verdicts.put(ask(store, rank, size, doing, answered=answered.set))
        except Exception:  # the store is gone with its host
            verdicts.put(None)
            answered.set()

    # A thread, because a store whose host is stopped never returns; it is left behind then.
    threading.Thread(target=put_verdict, daemon=True).start()
    if answered.wait(settle_seconds(size) + 0.5):
        with contextlib.suppress(queue.Empty):
            return verdicts.get(timeout=6 * settle_seconds(size) + 1)  # more than `ask` ever takes where answers come
    return None


def ask(
    store: Store,
    rank: int,
    size: int,
    doing: Doing,
    clock: Callable[[], float] = time.monotonic,
    answered: Callable[[], None] = lambda: None,
) -> Verdict | None:
    """What everyone who is alive tells, this rank included; None where those who read for all died over it.

    Args:
        store: that of one attempt.
        rank, size: of this process, and W.
        doing: what this rank was in.
        clock: in seconds.
        answered: called when the store has answered for the first time.
    """
    tell(store, rank, doing)
    verdict = None
    for turn, seconds in enumerate((settle_seconds(size), 0.0)):  # the second where the first reader has died, too
        is_reader = store.add(f"verdict/readers/{turn}", 1) == 1
        answered()
        if is_reader:
            verdict = _read(store, size, seconds, clock)
            store.set("verdict", verdict.to_json())
            break
        if come(store, ["verdict"], seconds + 2 * settle_seconds(size)):
            verdict = Verdict.from_json(store.get("verdict"))
            break
    if verdict is not None:
        # The store may be rank 0's: it must not end before all have read.
        if store.add("verdict/read", 1) >= sum(len(ranks) for _, ranks in verdict.groups):
            store.set("verdict/read-by-all", "1")
        if rank == 0:
            come(store, ["verdict/read-by-all"], settle_seconds(size))
    return verdict


def _read(store: Store, size: int, seconds: float, clock: Callable[[], float]) -> Verdict:
    """Wait for all to tell, at most so long, and read what they told."""
    keys = [f"alive/{rank}" for rank in range(size)]
    silent: list[int] = []
    whole = come(store, keys, seconds)
    if not whole:
        silent, whole = absent(store, keys, clock() + SETTLE_SECONDS, clock)
    looked_at = size if whole else silent[-1]
    living = sorted(set(range(looked_at)) - set(silent))
    groups: dict[Doing, list[int]] = {}
    for rank, words in zip(living, read_all(store, [keys[rank] for rank in living]), strict=True):
        groups.setdefault(Doing(**json.loads(words)), []).append(rank)
    return Verdict(list(groups.items()), silent, whole)


def _differences(verdict: Verdict, doing: Doing) -> str:
    failures = [(ranks, other.what) for other, ranks in verdict.groups if other.what.startswith(FAILED)]
    if failures:  # the others' exchanges have failed because of it
        return "; ".join(f"{in_words(ranks)} {failure}" for ranks, failure in failures)
    others: dict[tuple[str, str], list[int]] = {}
    for other, ranks in verdict.groups:
        if other.what != doing.what:
            others.setdefault((f"in {other.what}", f"in {doing.what}"), []).extend(ranks)
        elif other.brought != doing.brought:
            others.setdefault((f"brought {other.brought}", doing.brought), []).extend(ranks)
        elif other.call != doing.call:
            others.setdefault((f"at call {other.call}", f"at call {doing.call}"), []).extend(ranks)
    return "; ".join(f"{in_words(ranks)} {theirs}, this rank {ours}" for (theirs, ours), ranks in others.items())


def _ranks(spans: list[tuple[int, int]]) -> list[int]:
    return [rank for first, last in spans for rank in range(first, last + 1)]
