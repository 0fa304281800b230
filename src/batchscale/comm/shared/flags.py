"""Flags in shared memory: how far each process of a host has come, and waiting for them.

A flag is one int64 that a single process writes and all others read; it only grows. A wait looks at it, yields
the core for a while, then sleeps on it in the kernel (futex), and looks after its peers whenever it wakes.

Cost: about a microsecond a flag when its writer is ahead.
Source: Hensgen, Finkel and Manber 1988 and Mellor-Crummey and Scott 1991, section 3 (one word for each writer).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import time

from batchscale.comm.shared.mapping import Mapping, NoSharedMemory
from batchscale.comm.world.diagnosis import HUNG, settle_seconds
from batchscale.comm.world.world import World
from batchscale.errors import ProcessError

ARRIVED, FINISHED, _GIVEN_UP = 0, 8, 16  # words of a row, each on a cache line of its own
_BROUGHT = 32  # from here on: what was brought to the last collectives, one word each
IN_FLIGHT = 32  # collectives that a process may be ahead of its slowest peer
ROW_WORDS = _BROUGHT + 2 * IN_FLIGHT

_SPIN_SECONDS = 100e-6
_SLEEP_SECONDS = 0.05

_libc = ctypes.CDLL(None, use_errno=True)
# The call's number is x86-64's, which Mapping asks for; the kinds are not the PRIVATE ones: processes share the word.
_SYS_FUTEX, _FUTEX_WAIT, _FUTEX_WAKE = 202, 0, 1


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


def _sleep_while(address: int, value: int, seconds: float) -> None:
    """Sleep until someone wakes, unless the low half of the word is not ``value`` any more, or time is up."""
    timeout = _Timespec(0, int(seconds * 1e9))
    _libc.syscall(
        ctypes.c_long(_SYS_FUTEX), ctypes.c_void_p(address), ctypes.c_int(_FUTEX_WAIT),
        ctypes.c_uint32(value & 0xFFFFFFFF), ctypes.byref(timeout), None, ctypes.c_int(0),
    )  # fmt: skip


def _wake(address: int) -> None:
    _libc.syscall(
        ctypes.c_long(_SYS_FUTEX), ctypes.c_void_p(address), ctypes.c_int(_FUTEX_WAKE), ctypes.c_int(1 << 30),
        None, None, ctypes.c_int(0),
    )  # fmt: skip


def has_ended(life: int) -> bool:
    """Whether the process of a pidfd has; by poll, since select takes no descriptor from 1,024 on."""
    poll = select.poll()
    poll.register(life, select.POLLIN)
    return bool(poll.poll(0))


class Flags:
    """The flags of all processes of this host, at the beginning of a mapping's rows.

    Args:
        world: the processes.
        mapping: whose rows begin with ``ROW_WORDS`` words for this.
        name: of the collective, for errors.

    Raises:
        NoSharedMemory: this system has no way to watch the peers.
    """

    def __init__(self, world: World, mapping: Mapping, name: str) -> None:
        self._world, self._name, self._mapping = world, name, mapping
        self._me = world.local_rank
        count = len(world.local_ranks)
        self._words = [mapping.words(row, ROW_WORDS) for row in range(count)]
        self._addresses = [mapping.rows[row].data_ptr() for row in range(count)]
        self._peers = [row for row in range(count) if row != self._me]
        self._pids = world.gather(os.getpid(), "sharing memory")
        self._lives: dict[int, int] = {}
        # A peer may itself wait for another host: it is to ask, and to tell, first.
        self._extra_seconds = 2 * settle_seconds(world.size) if len(world.hosts) > 1 else 0.0
        self._watch_peers(world)

    def _watch_peers(self, world: World) -> None:
        """Get a handle on the life of each peer, which tells of its death even before its parent knows."""
        reason = None
        try:
            for row in self._peers:
                with contextlib.suppress(ProcessLookupError):  # it has died already: the first wait says so
                    self._lives[row] = os.pidfd_open(self._pid(row))
        except (OSError, AttributeError) as error:  # AttributeError: a Python that was built without it
            reason = f"peers cannot be watched (pidfd_open: {getattr(error, 'strerror', None) or error})"
        if reasons := [r for r in world.gather(reason, "sharing memory") if r]:
            self.close()
            raise NoSharedMemory(reasons[0])

    def _pid(self, row: int) -> int:
        return self._pids[self._world.local_ranks[row]]

    def post(self, word: int, value: int) -> None:
        """Say how far this process is."""
        self._words[self._me][word] = value
        _wake(self._addresses[self._me] + 8 * word)  # always: to know of sleepers would take a second flag

    def bring(self, number: int, what: int) -> None:
        """Say what this process brings to collective ``number``; before ``post(ARRIVED, number)``."""
        self._words[self._me][_BROUGHT + number % (2 * IN_FLIGHT)] = what

    def brought(self, row: int, number: int) -> int:
        """What a process brought to collective ``number``."""
        return self._words[row][_BROUGHT + number % (2 * IN_FLIGHT)]

    def there(self, word: int, value: int) -> bool:
        """Whether every peer has come so far."""
        return all(self._words[row][word] >= value for row in self._peers)

    def wait(self, word: int, value: int, what: str) -> None:
        """Until every peer has come so far.

        Raises:
            ProcessError: a peer died, gave up, or did not come in time; names it.
        """
        for row in self._peers:
            if self._words[row][word] < value:
                self._wait_for(row, word, value, what)

    def _wait_for(self, row: int, word: int, value: int, what: str) -> None:
        words, address = self._words[row], self._addresses[row] + 8 * word
        start = time.monotonic()
        while time.monotonic() - start < _SPIN_SECONDS:
            _libc.sched_yield()  # unlike os.sched_yield, lets other threads of this interpreter run, too
            if words[word] >= value:
                return
        is_told = False
        while (seen := words[word]) < value:
            _sleep_while(address, seen, _SLEEP_SECONDS)  # returns at once where it has grown since it was seen
            if words[word] < value:
                self._look_after_peers(row, word, value, what)
                patience = self._world.patience
                if not is_told and patience.over(start):
                    self._world.tell_alive(what, timed_out=True)
                    is_told = True
                if is_told and patience.over(start + self._extra_seconds):
                    seconds = max(patience.lasted(start), patience.seconds + self._extra_seconds)
                    state = "is stopped and " if self._is_stopped(row) else ""
                    self.give_up(what, f"{state}{HUNG} {seconds:g} s", row)

    def _look_after_peers(self, awaited: int, word: int, value: int, what: str) -> None:
        """Raise where a peer can never come; the flags of one that died after its last word still count."""
        for row in self._peers:
            if failed := self._words[row][_GIVEN_UP]:
                finder = self._world.local_ranks[row]
                why = f"failed, as rank {finder} found" if failed - 1 != row else "gave up; its own error says why"
                self.give_up(what, why, failed - 1)
            dead = row not in self._lives or has_ended(self._lives[row])
            if dead and self._words[awaited][word] < value:  # not raised between our look at it and its end
                self.give_up(what, "died", row)

    def give_up(self, what: str, why: str, row: int) -> None:
        """Let the peers know at once which process failed, and raise.

        Raises:
            ProcessError: always.
        """
        self.post(_GIVEN_UP, 1 + row)
        rank = self._world.local_ranks[row]
        self._world.tell_alive(what, timed_out=HUNG in why)
        sentence = f"{what} by {self._name} (rank {self._world.rank} of {self._world.size}): rank {rank} {why}"
        raise ProcessError(sentence, leaderless=rank == 0)

    def fail(self) -> None:
        """Let the peers know that this process raises, and will not come."""
        self.post(_GIVEN_UP, 1 + self._me)

    def _is_stopped(self, row: int) -> bool:
        with contextlib.suppress(OSError), open(f"/proc/{self._pid(row)}/stat", encoding="utf-8") as file:
            return file.read().rsplit(")", 1)[1].split()[0] in "tT"
        return False

    def close(self) -> None:
        """Let go of the peers."""
        for life in self._lives.values():
            os.close(life)
        self._lives = {}
