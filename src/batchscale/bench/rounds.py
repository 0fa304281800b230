"""The rounds of a benchmark of contenders: each is warmed up alone, then all take a turn in every round."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field

from batchscale.bench.contender import Block, Contender
from batchscale.bench.turns import in_turn
from batchscale.errors import ProcessError

_FIRST_STEPS = 2  # of the first warm-up block
_WARM_SECONDS = 1.0  # of the last one, about
_TIMES_AS_MANY = 4  # steps of a block, at most, as of the one before: what lay ready makes the first ones look fast


@dataclass(frozen=True)
class Budget:
    """How long to measure; with as many rounds at least as at most, exactly so many.

    Args:
        total_seconds: of the whole benchmark, starting the processes included.
        block_seconds: of one contender's turn, at most.
        min_rounds, max_rounds: rounds, whatever the time says.
        shortest_seconds: of a turn, where the time is short; None: turns do not get shorter.
    """

    total_seconds: float = 200.0
    block_seconds: float = 2.0
    min_rounds: int = 5
    max_rounds: int = 40
    shortest_seconds: float | None = None


@dataclass
class Measured:
    """One contender, the steps of its turn, and its blocks, one a round."""

    contender: Contender
    steps: int = 1
    seconds_per_step: float = 0.0
    blocks: list[Block] = field(default_factory=list)


class Rounds:
    """Contenders that are warmed up, then measured in turn.

    Args:
        ours: names of those that may not fail; any other that does is left out with a note.
        notes: where such notes go.
        say: told of the progress.

    Attributes:
        running: those that have not failed.
    """

    def __init__(self, ours: Collection[str], notes: list[str], say: Callable[[str], None]) -> None:
        self._ours, self._notes, self._say = ours, notes, say
        self.running: list[Measured] = []

    def start(self, contender: Contender) -> None:
        """Start a contender, alone on the machine, and time its steps.

        Raises:
            ProcessError: one of ours died.
        """
        self._say(f"starting {contender.name}")
        measured = Measured(contender)
        self.running.append(measured)
        with self.may_fail(measured):
            contender.start()
            contender.ready()
            warm_up(measured)

    def measure(self, budget: Budget, begun: float, multiple: int = 1) -> None:
        """All contenders once a round, in an order that changes from round to round.

        Args:
            budget: how long.
            begun: when the benchmark began (``time.monotonic``).
            multiple: a turn has a multiple of so many steps.

        Raises:
            ProcessError: one of ours died.
        """
        left = budget.total_seconds - (time.monotonic() - begun)
        seconds = budget.block_seconds
        if budget.shortest_seconds is not None:
            seconds = min(max(left / budget.min_rounds / len(self.running), budget.shortest_seconds), seconds)
        for measured in self.running:
            measured.steps = max(round(seconds / measured.seconds_per_step / multiple), 1) * multiple
        round_seconds = sum(m.steps * m.seconds_per_step for m in self.running)
        rounds = min(max(int(left / round_seconds), budget.min_rounds), budget.max_rounds)
        for number in range(rounds):
            self._say(f"round {number + 1} of {rounds} ({round_seconds:.0f} s each)")
            for measured in in_turn(self.running, number):
                with self.may_fail(measured):
                    expected = measured.steps * measured.seconds_per_step
                    measured.blocks.append(measured.contender.block(measured.steps, expected))

    def close(self) -> None:
        """End all processes."""
        for measured in self.running:
            measured.contender.close()

    def leave_out(self, measured: Measured, note: str) -> None:
        """End one that was running; it takes no further turns."""
        self._say(note)
        self._notes.append(note)
        self.running.remove(measured)
        measured.contender.close()

    @contextlib.contextmanager
    def may_fail(self, measured: Measured) -> Iterator[None]:
        """Within it, one that fails is ended and left out with a note; one of ours ends the benchmark."""
        try:
            yield
        except ProcessError as error:
            if measured.contender.name in self._ours:
                raise
            self.leave_out(measured, f"left out: {error}")


def warm_up(measured: Measured) -> None:
    """At least two blocks, until one is long enough to tell how long a step takes."""
    steps, blocks = _FIRST_STEPS, 0
    while True:
        wall_seconds = measured.contender.block(steps).wall_seconds
        measured.seconds_per_step, blocks = wall_seconds / steps, blocks + 1
        if blocks > 1 and wall_seconds > _WARM_SECONDS / 2:
            return
        steps = min(max(round(_WARM_SECONDS / measured.seconds_per_step), 1), _TIMES_AS_MANY * steps)
