"""How long a rank waits for the others: longer at the start, and while one of them says that it is busy.

Gloo's exchanges have the bound that their group was made with, and one that has run into it cannot go on. So the group
is made with the longest bound, and a thread of each rank (`Watch`) ends what outlasts the bound of its time. It first
asks the store if a rank is busy with something of its own, such as a checkpoint on a slow disk.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from batchscale.comm.world.diagnosis import SETTLE_SECONDS
from batchscale.system.notes import note

T = TypeVar("T")
_BUSY, _BEATS, _FAILED = "busy", "beats", "failed"
_BEAT_SECONDS = 1.0  # how often at least a busy rank says that it lives
_ASK_SECONDS = 1.0  # how often a rank that waits for the device asks if another has failed: NCCL does not tell it
_MOST_WATCH_SECONDS = 1.0


class Patience:
    """The bounds of one rank's waits.

    Args:
        timeout_seconds: a peer silent for this long has hung.
        startup_seconds: the same before ``started``, in ``longer`` and beside a busy rank, where that is more.
    """

    def __init__(self, timeout_seconds: float, startup_seconds: float | None = None) -> None:
        self.timeout_seconds = timeout_seconds
        self._startup_seconds = startup_seconds or 0.0
        self._store: Any = None
        self._starting = True
        self._longer = 0
        self._busy_at = self._asked_at = 0.0
        self._beats = 0
        self._asks = self._other_failed = False

    def by(self, store: Any) -> None:
        """From now on ask and tell through this store, shared by all ranks and by nobody else."""
        self._store = store

    def started(self) -> None:
        """The first step is done: from here on the usual bound holds."""
        self._starting = False

    @property
    def longest_seconds(self) -> float:
        """The longest bound there is."""
        return max(self.timeout_seconds, self._startup_seconds)

    @property
    def changes(self) -> bool:
        """Whether there are two bounds."""
        return self.longest_seconds > self.timeout_seconds

    @property
    def group_seconds(self) -> float:
        """The bound that a Gloo group is made with: behind all others, which ``Watch`` keeps where there are two."""
        return self.longest_seconds + (self.timeout_seconds if self.changes else 0.0)

    @property
    def seconds(self) -> float:
        """The bound of what is waited for now."""
        return self.longest_seconds if self._starting or self._longer else self.timeout_seconds

    @contextlib.contextmanager
    def longer(self) -> Iterator[None]:
        """While it is open, on all ranks alike, work is dealt unevenly: the longest bound holds."""
        self._longer += 1
        try:
            yield
        finally:
            self._longer -= 1

    @contextlib.contextmanager
    def noted(self, line: str) -> Iterator[None]:
        """While it is open, a note for the user where it takes longer than the usual bound."""
        bounds = f"after {self.timeout_seconds:g} s; giving up after {self.longest_seconds:g} s"
        timer = threading.Timer(self.timeout_seconds, note, [f"{line} {bounds}"])
        timer.daemon = True
        if self.changes:
            timer.start()
        try:
            yield
        finally:
            timer.cancel()

    @contextlib.contextmanager
    def busy(self) -> Iterator[None]:
        """While it is open, this rank alone is busy: the others, when their bound is over, learn it and wait on."""
        if not self.changes or self._starting or self._store is None:
            yield
            return
        ended = threading.Event()
        thread = threading.Thread(target=self._beat, args=(self._store, ended), daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join(SETTLE_SECONDS)  # a store whose host is stopped never answers

    def _beat(self, store: Any, ended: threading.Event) -> None:
        """Say that this rank is busy, and, until it has ended, that it lives: one that dies over it says no more."""
        with contextlib.suppress(Exception):
            store.add(_BUSY, 1)
            store.add(_BEATS, 1)
            while not ended.wait(min(_BEAT_SECONDS, self.timeout_seconds / 4)):
                store.add(_BEATS, 1)
            store.add(_BUSY, -1)

    def lasted(self, since: float) -> float:
        """What to tell of a wait that began then and was in vain: its bound, or its seconds where a busy rank drew it
        out.
        """
        seconds = time.monotonic() - since
        return self.seconds if seconds < 1.5 * self.seconds + SETTLE_SECONDS else float(round(seconds))

    def over(self, since: float) -> bool:
        """Whether a wait that began then, on the monotonic clock, has outlasted its bound.

        A rank that was busy has a whole bound from then on to come, but never more than the longest. It is looked at
        once a bound, and must have said since that it lives.
        """
        now = time.monotonic()
        if now - max(since, self._busy_at) <= self.seconds:
            return False
        if now - since > self.longest_seconds or not self._someone_busy():
            return True
        self._busy_at = now
        return False

    def _someone_busy(self) -> bool:
        store = self._store
        if store is None or not self.changes:
            return False
        busy, beats = _answer(lambda: (store.add(_BUSY, 0), store.add(_BEATS, 0))) or (0, 0)  # adding 0 reads
        previous, self._beats = self._beats, beats
        return busy > 0 and beats != previous

    def tell_failed(self) -> None:
        """Let ranks that wait for their device know that this one will not come."""
        if store := self._store:
            _answer(lambda: store.set(_FAILED, ""))

    def someone_failed(self) -> bool:
        """Whether a rank has said so, as far as is known by now; asked once a second at most, in the background."""
        store, now = self._store, time.monotonic()
        if store is not None and not self._asks and now - self._asked_at >= _ASK_SECONDS:
            self._asked_at, self._asks = now, True
            threading.Thread(target=self._ask, args=(store,), daemon=True).start()
        return self._other_failed

    def _ask(self, store: Any) -> None:
        with contextlib.suppress(Exception):
            self._other_failed = self._other_failed or bool(store.check([_FAILED]))
        self._asks = False  # where the store never answers, this thread stays the only one


def _answer(ask: Callable[[], T]) -> T | None:
    """What the store says; None where it is gone or silent.

    By a thread of its own, because a store whose host is stopped never returns; the thread is left behind then.
    """
    answers: list[T] = []

    def run() -> None:
        with contextlib.suppress(Exception):
            answers.append(ask())

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(SETTLE_SECONDS)
    return answers[0] if answers else None


class Watch:
    """The exchanges under way, and, once it was started, a thread that hangs up where one outlasts its bound."""

    def __init__(self) -> None:
        self._under_way: dict[object, float] = {}
        self._lock = threading.Lock()  # an exchange ends before a hang-up or after it, never while it is under way
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, patience: Patience, hang_up: Callable[[], None]) -> None:
        """Begin to look after them.

        Args:
            patience: of this rank.
            hang_up: closes this rank's connections, so that the exchange fails.
        """
        self._thread = threading.Thread(
            target=self._run, args=(patience, hang_up), name="batchscale-watch", daemon=True
        )
        self._thread.start()

    def begin(self) -> object:
        """An exchange begins; the token is for ``end``."""
        token = object()
        with self._lock:
            self._under_way[token] = time.monotonic()
        return token

    def end(self, token: object) -> bool:
        """An exchange has ended; whether it was hung up on, because its time was over."""
        with self._lock:
            return self._under_way.pop(token, None) is None

    def _run(self, patience: Patience, hang_up: Callable[[], None]) -> None:
        while not self._ended.wait(min(_MOST_WATCH_SECONDS, patience.timeout_seconds / 20)):
            with self._lock:
                under_way = list(self._under_way.items())
            for token, since in under_way:
                if patience.over(since):  # may ask the store, so not within the lock
                    with self._lock:
                        if self._under_way.pop(token, None) is not None:
                            hang_up()

    def close(self) -> None:
        """End the thread, before the group does whose connections it would close."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
