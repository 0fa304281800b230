"""A store and W ranks in virtual time: the product's own code, thousands of ranks, no clock and no socket.

One server answers requests one after another, as torch's TCPStore does; the ranks are threads of which exactly one runs
at any time, in the order of virtual time, so that a simulation is the same each time. What a request costs: its service
(1 / requests a second, and a fiftieth of that for each further key: measured on a real store, 77 us a request and 0.5
to 1.5 us a key), and half a round trip each way.
"""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from torch.distributed import DistNetworkError, DistStoreError

ROUND_TRIP_SECONDS = 100e-6
_SERVICE_OF_A_KEY = 1 / 50  # of that of a request
_STACK_BYTES = 256 << 10


class Killed(BaseException):
    """Ends a rank that the simulation has killed, or that nobody will wake any more."""


class Wait:
    """A wait that the server holds."""

    def __init__(self, keys: Sequence[str], reply: Callable[..., None]) -> None:
        self.missing, self.reply, self.is_cancelled = set(keys), reply, False


class _Rank:
    """A thread that runs only while the simulation waits for it."""

    def __init__(self, simulation: Simulation, function: Callable[[SimulatedStore], Any]) -> None:
        self._simulation, self._function = simulation, function
        self._turn = threading.Semaphore(0)
        self.store = SimulatedStore(simulation, self)
        self.outcome: Any = None
        self.ended_at: float | None = None
        self.is_killed = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()
        self.resume()

    def _run(self) -> None:
        self._turn.acquire()
        try:
            self.outcome = self._function(self.store)
            self.ended_at = self._simulation.now
        except Killed as error:
            self.outcome = error
        except Exception as error:
            self.outcome = error
            self.ended_at = self._simulation.now
        self._simulation.idle.release()

    def resume(self) -> None:
        """Let it run until it waits for something, or ends; the simulation's side."""
        if self.ended_at is None and not isinstance(self.outcome, Killed):
            self._turn.release()
            self._simulation.idle.acquire()

    def pause(self) -> None:
        """Wait to be resumed; the rank's side."""
        self._simulation.idle.release()
        self._turn.acquire()
        if self.is_killed:
            raise Killed

    def kill(self) -> None:
        """End it where it waits."""
        self.is_killed = True
        self.resume()


class Simulation:
    """A server, and ranks that ask it.

    Args:
        requests_per_second: that the server answers.

    Attributes:
        now: virtual seconds.
        keys: what the server holds.
        service_seconds: that a request takes the server.
    """

    def __init__(self, requests_per_second: float) -> None:
        self.now = 0.0
        self.keys: dict[str, bytes] = {}
        self.idle = threading.Semaphore(0)
        self.service_seconds = 1 / requests_per_second
        self._free_at = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._waiting: dict[str, list[Wait]] = {}
        self.is_dead = False
        self.ranks: list[_Rank] = []

    def clock(self) -> float:
        """Virtual seconds."""
        return self.now

    @property
    def ended_at(self) -> float:
        """When the last rank ended; what comes later is time-outs of what has been answered."""
        return max(rank.ended_at or 0.0 for rank in self.ranks)

    def at(self, seconds: float, action: Callable[[], None]) -> None:
        """Do something at a time."""
        heapq.heappush(self._events, (seconds, next(self._numbers), action))

    def run(
        self, functions: Sequence[Callable[[SimulatedStore], Any]], starts: Sequence[float] | None = None
    ) -> list[Any]:
        """Run a function of a store for each rank, until nothing happens any more: their results or exceptions.

        A rank that waits for what never comes ends as ``Killed``.
        """
        bytes_before = threading.stack_size(_STACK_BYTES)
        try:
            ranks = [_Rank(self, function) for function in functions]
            self.ranks += ranks
            for rank, start in zip(ranks, starts or [self.now] * len(ranks), strict=True):
                self.at(start, rank.start)
            while self._events:
                self.now, _, action = heapq.heappop(self._events)
                action()
            for rank in self.ranks:
                if rank.outcome is None and rank.ended_at is None:
                    rank.kill()
        finally:
            threading.stack_size(bytes_before)
        return [rank.outcome for rank in ranks]

    def die(self) -> None:
        """Close the server: every request, also one under way, fails."""
        self.is_dead = True
        for wait in {wait for waits in self._waiting.values() for wait in waits}:
            wait.reply(DistNetworkError("connection closed"))
        self._waiting.clear()

    def serve(self, keys: int, effect: Callable[[], None]) -> None:
        """One request, sent now: after its way, and those before it, it takes effect."""

        def arrive() -> None:
            self.at(self._take_time(1 + _SERVICE_OF_A_KEY * (keys - 1)), effect)

        self.at(self.now + ROUND_TRIP_SECONDS / 2, arrive)

    def _take_time(self, requests: float) -> float:
        self._free_at = max(self._free_at, self.now) + requests * self.service_seconds
        return self._free_at

    def put(self, key: str, value: bytes) -> None:
        """A key is there: whoever waits for it and nothing else gets an answer, each of which takes the server time."""
        if self.is_dead:
            return
        self.keys[key] = value
        for wait in self._waiting.pop(key, []):
            wait.missing.discard(key)
            if not wait.missing and not wait.is_cancelled:
                self.at(self._take_time(1.0), wait.reply)

    def wait(self, wait: Wait) -> None:
        """Answer at once, or hold it until its keys are there."""
        if self.is_dead:
            wait.reply(DistNetworkError("connection closed"))
            return
        wait.missing = {key for key in wait.missing if key not in self.keys}
        for key in wait.missing:
            self._waiting.setdefault(key, []).append(wait)
        if not wait.missing:
            wait.reply()


class SimulatedStore:
    """One rank's connection: `comm.world.store.Store`, as torch's TCPStore has it.

    Attributes:
        requests: that went to the server. A get is two, as with TCPStore: it waits for the key, then reads it.
        bytes: of keys and values, both ways.
    """

    timeout = timedelta(seconds=300)

    def __init__(self, simulation: Simulation, rank: _Rank) -> None:
        self._simulation, self._rank = simulation, rank
        self.requests = self.bytes = 0

    def _send(self, keys: int, effect: Callable[[], None]) -> None:
        """A request that has no answer, or whose answer comes by itself."""
        if self._simulation.is_dead:
            raise DistNetworkError("connection refused")
        self.requests += 1
        self._simulation.serve(keys, effect)

    def _ask(self, keys: int, answer: Callable[[], Any]) -> Any:
        """A request and its answer."""
        answers: list[Any] = []

        def reply() -> None:
            dead = self._simulation.is_dead
            answers.append(DistNetworkError("connection closed") if dead else answer())
            self._simulation.at(self._simulation.now + ROUND_TRIP_SECONDS / 2, self._rank.resume)

        self._send(keys, reply)
        self._rank.pause()
        if isinstance(answers[0], Exception):
            raise answers[0]
        return answers[0]

    def set(self, key: str, value: str) -> None:
        """Put a value; no answer is waited for."""
        self.multi_set([key], [value])

    def multi_set(self, keys: list[str], values: list[str]) -> None:
        """Put values in one request; no answer is waited for."""

        def effect() -> None:
            for key, value in zip(keys, values, strict=True):
                self._simulation.put(key, value.encode())

        self.bytes += sum(map(len, keys)) + sum(map(len, values))
        self._send(len(keys), effect)

    def get(self, key: str) -> bytes:
        """A value, once it is there."""
        return self.multi_get([key])[0]

    def multi_get(self, keys: list[str]) -> list[bytes]:
        """Values, once they are all there."""
        self.wait(keys, self.timeout)
        values = self._ask(len(keys), lambda: [self._simulation.keys[key] for key in keys])
        self.bytes += sum(map(len, keys)) + sum(map(len, values))
        return list(values)

    def add(self, key: str, amount: int) -> int:
        """Add to a number, which begins at 0; the sum."""

        def answer() -> int:
            total = int(self._simulation.keys.get(key, b"0")) + amount
            self._simulation.put(key, str(total).encode())
            return total

        self.bytes += len(key) + 8
        return int(self._ask(1, answer))

    def compare_set(self, key: str, expected: str, desired: str) -> bytes:
        """Put a value in place of the one that is expected, "" for none; what is there then, else what was expected."""

        def answer() -> bytes:
            if self._simulation.keys.get(key, b"") == expected.encode():
                self._simulation.put(key, desired.encode())
            return self._simulation.keys.get(key, expected.encode())

        self.bytes += len(key) + len(expected) + len(desired)
        return bytes(self._ask(1, answer))

    def check(self, keys: list[str]) -> bool:
        """Whether all are there."""
        self.bytes += sum(map(len, keys))
        return bool(self._ask(len(keys), lambda: all(key in self._simulation.keys for key in keys)))

    def wait(self, keys: list[str], timeout: timedelta) -> None:
        """Until all are there, or DistStoreError; then one request more takes the wait back, as with TCPStore."""
        outcomes: list[Any] = []
        simulation, rank = self._simulation, self._rank

        def reply(outcome: Any = "there") -> None:
            if not outcomes:  # a late one is lost: the client has taken its wait back
                outcomes.append(outcome)
                simulation.at(simulation.now + ROUND_TRIP_SECONDS / 2, rank.resume)

        def give_up() -> None:
            if not outcomes:
                outcomes.append("time is up")
                rank.resume()

        wait = Wait(keys, reply)
        self.bytes += sum(map(len, keys))
        self._send(len(keys), lambda: simulation.wait(wait))
        simulation.at(simulation.now + timeout.total_seconds(), give_up)
        rank.pause()
        if isinstance(outcomes[0], Exception):
            raise outcomes[0]
        if outcomes[0] == "time is up":
            wait.is_cancelled = True
            self._ask(1, lambda: None)
            raise DistStoreError(f"wait timeout after {timeout}")

    def has_extended_api(self) -> bool:
        """It has multi_get and multi_set."""
        return True
