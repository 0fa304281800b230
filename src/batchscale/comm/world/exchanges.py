"""What a rank exchanges with the others: by a bound, after a meeting where it is new, with a reason where it fails."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

from batchscale.comm.world.device import DeviceQueue, Event, wait_on_host
from batchscale.comm.world.diagnosis import Doing, diagnose, first_line, tell
from batchscale.comm.world.gloo import hang_up
from batchscale.comm.world.messages import meet, tag_of
from batchscale.comm.world.patience import Patience, Watch
from batchscale.errors import ProcessError

T = TypeVar("T")


class Exchanges:
    """The exchanges of one rank.

    Args:
        rank, size: of this process, and W.
        patience: how long this rank waits for the others.
        queue: of its GPU; None on the CPU.
        record: called after a failure on a GPU; what it leaves, as the end of the error's sentence.
        store: shared by all ranks, and of this world alone; None before there is one.

    Attributes:
        objects: the Gloo group of all ranks; None before there is one.
        calls: how many sums by the backend there were.
    """

    def __init__(
        self,
        rank: int,
        size: int,
        patience: Patience,
        queue: DeviceQueue | None,
        record: Callable[[], str],
        store: Any = None,
    ) -> None:
        self.patience, self.queue, self.store = patience, queue, store
        self.objects: Any = None
        self.calls = 0
        self._rank, self._size, self._record = rank, size, record
        self._watch = Watch()
        self._overdue = False
        self._last = ("", "")
        self._met: set[tuple[tuple[str, str], tuple[str, str]]] = set()

    def watch(self) -> None:
        """From here on a thread ends what outlasts the bound of its time, where that is not the group's."""
        if self.patience.changes:
            self._watch.start(self.patience, lambda: hang_up(self.objects, self._rank))

    def guard(self, exchange: Callable[[], T], what: str, brought: str = "", call: int = 0) -> T:
        """Run an exchange; when it fails, find out which rank is silent or in something else, and say so.

        Args:
            exchange: blocks.
            what: it is, in words.
            brought: length and type of its tensor.
            call: its number among those of its kind.

        Raises:
            ProcessError: a rank died, hangs, or is in something else; names it.
        """
        start = time.monotonic()
        token = self._watch.begin()
        try:
            value = exchange()
            if self._watch.end(token):
                raise RuntimeError("timed out: the others came as this rank hung up")
            return value
        except RuntimeError as error:
            reason = first_line(error)
            overdue = self._watch.end(token) or "imed out" in reason  # backends write it with T and with t
            if self.queue is not None:
                self.patience.tell_failed()
            doing, seconds = self._doing(what, brought, call, overdue, start), self.patience.seconds
            cause, lost = diagnose(self.store, self.objects, self._rank, self._size, seconds, doing, reason)
            file = self._record() if self.queue is not None else ""
            sentence = f"{what} (rank {self._rank} of {self._size}): {cause}{file}"
            raise ProcessError(sentence, leaderless=lost) from error
        finally:
            self._watch.end(token)

    def _doing(self, what: str, brought: str, call: int, overdue: bool, start: float) -> Doing:
        # Once this rank has waited in vain, all that it tells says so: what fails after that fails because of it.
        self._overdue = self._overdue or overdue
        return Doing(what, brought, call, self._overdue, self.patience.lasted(start) if overdue else 0.0)

    def tell(self, what: str, timed_out: bool) -> None:
        """Let the others learn that this rank is not the silent one, when they ask who is."""
        tell(self.store, self._rank, self._doing(what, "", 0, timed_out, time.monotonic()))

    def meet(self, what: str, brought: str) -> None:
        """Before a sum by the backend that has not followed the one before it yet: be sure that all are in the same.

        Gloo ends the process, or sums rubbish, where lengths or types differ. So whoever comes to something new
        meets the others first, by messages whose tag names it; who is in something else never gets one. Repeats
        cost nothing.
        """
        self.calls += 1
        follows = (self._last, (what, brought))
        self._last = (what, brought)
        if follows in self._met:
            return
        meet(self.objects, self._rank, self._size, tag_of(what, brought, self.calls))
        self._met.add(follows)

    def wait_for_device(self, what: str, event: Event | None = None) -> None:
        """Block until the device has done all that it was given on the current stream; nothing on the CPU.

        Args:
            what: it does, in words.
            event: wait for this one instead.

        Raises:
            ProcessError: it has not in time; names who keeps it from it.
        """
        queue = self.queue
        if queue is not None:
            self.guard(lambda: wait_on_host(event or queue.mark(), self.patience), what)

    def close(self) -> None:
        """End the watch, and let go of group and store: a group's threads end with its last reference."""
        self._watch.close()
        self.patience.by(None)
        self.objects = self.store = None
