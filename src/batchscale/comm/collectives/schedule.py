"""All-reduce algorithms as schedules: rounds in which slices of one buffer go from rank to rank.

collective = stages one after another; stage = parts side by side; part = rounds over groups of ranks

A schedule holds for the whole world at once, as numpy arrays; every part of it declares in closed form what it
will send, and a test compares that with what its rounds do send. Two interpreters run schedules: one process for
thousands of ranks (`comm/collectives/simulated.py`), and real processes (`comm/collectives/point_to_point.py`).
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from batchscale.comm.collectives.traffic import Floats, Traffic
from batchscale.errors import RecipeError

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Step:
    """One round: every receiver reads what the senders held at its beginning.

    Args:
        source, target: ranks (exchanges,); a target that gets several slices takes them in this order.
        begin, end: the slice [begin, end) of the buffer, never empty (exchanges,).
        add: the receiver adds the slice to its own; else it overwrites its own.
    """

    source: Ints
    target: Ints
    begin: Ints
    end: Ints
    add: bool


@dataclass(frozen=True)
class Cost:
    """What an all-reduce sends.

    Args:
        steps: rounds.
        elements_sent: by the rank that sends most.
        messages: by the rank that sends most of them.
    """

    steps: int
    elements_sent: int
    messages: int

    def seconds(self, alpha_seconds: float, beta_seconds: float, element_bytes: int) -> float:
        """Predicted time: steps * alpha + elements_sent * element_bytes * beta.

        Args:
            alpha_seconds: of one round without bytes.
            beta_seconds: of one byte.
            element_bytes: of one element.

        Source: Thakur, Rabenseifner, Gropp 2005, section 3 (the alpha-beta model).
        """
        return self.steps * alpha_seconds + self.elements_sent * element_bytes * beta_seconds


@dataclass(frozen=True)
class Sent:
    """What a part sends by its own declaration: elements and messages of each of its ranks, arrays of one shape."""

    ranks: Ints
    elements: Ints
    messages: Ints


@dataclass(frozen=True)
class Groups:
    """G groups of S ranks each, every group with a span of the buffer of its own.

    Args:
        ranks: (G, S).
        begin, end: the spans [begin, end) (G,).
    """

    ranks: Ints
    begin: Ints
    end: Ints

    @classmethod
    def world(cls, size: int, length: int) -> Groups:
        """All ranks as one group over the whole buffer."""
        return cls(np.arange(size, dtype=np.int64)[None], np.zeros(1, np.int64), np.full(1, length, np.int64))

    @property
    def size(self) -> int:
        """S, ranks a group."""
        return int(self.ranks.shape[1])

    def cuts(self, pieces: int) -> Ints:
        """Where every span is cut into pieces as even as possible: begin + i * length // pieces (G, pieces + 1).

        Cuts into a divisor of the pieces are among these, so halves are made of whole pieces.
        """
        spans = (self.end - self.begin)[:, None]
        return self.begin[:, None] + spans * np.arange(pieces + 1, dtype=np.int64) // pieces


class GroupRounds(ABC):
    """Rounds over groups of ranks, a part of a stage.

    Attributes:
        add: whether receivers add or overwrite, the same in all its rounds.
        rounds: how many.
    """

    add: bool
    rounds: int

    @abstractmethod
    def steps(self) -> Iterator[Step]:
        """The rounds, exactly as many as declared; one may be without an exchange where pieces are empty."""

    @abstractmethod
    def sent(self) -> Sent:
        """What every rank sends in all rounds, in closed form."""


Stage = Sequence[tuple[int, GroupRounds]]
"""Parts side by side, each with the round of the stage in which it begins; all add, or all overwrite."""


@dataclass(frozen=True)
class Layout:
    """What an algorithm is shaped by.

    Args:
        size: W, ranks.
        hosts: ranks of every host, or None where nothing is known of hosts.
        torus: X and Y, or None to choose them.
        between: the algorithm between hosts, or ``auto``.
        setting: the recipe's entry that chose the algorithm, for errors.
    """

    size: int
    hosts: Sequence[Sequence[int]] | None = None
    torus: tuple[int, int] | None = None
    between: str = "auto"
    setting: str = "execution.aggregation.algorithm"

    def groups(self) -> Sequence[Sequence[int]]:
        """The hosts; without them groups of k = sqrt(W / 2), where 4 (k - 1) + 2 (W / k - 1) steps are fewest."""
        if self.hosts is not None:
            return self.hosts
        each = max(1, round(math.sqrt(self.size / 2)))
        return [range(first, min(first + each, self.size)) for first in range(0, self.size, each)]


class Collective(ABC):
    """An all-reduce (sum): the base of every algorithm in `comm/collectives/`."""

    name: ClassVar[str]

    @classmethod
    def in_layout(cls, layout: Layout) -> Collective:
        """The algorithm, shaped for ranks that lie like this."""
        return cls()

    def check(self, size: int) -> None:  # noqa: B027 (most algorithms are made for every W)
        """Raise where the algorithm is not made for W ranks.

        Raises:
            RecipeError: names the setting and the way out.
        """

    @classmethod
    def traffic(cls, hosts: Floats, each: Floats) -> Traffic:
        """What it puts on links, without making a schedule: what a plan prices.

        Args:
            hosts: h of every layout (n).
            each: devices on each of its hosts (n).

        Raises:
            RecipeError: it declares none; one of a plugin need not.
        """
        raise RecipeError(
            f"execution.aggregation.algorithm={cls.name}: declares no traffic in closed form, so no plan can price it; "
            f"write its method traffic, or plan with another algorithm"
        )

    @abstractmethod
    def stages(self, size: int, length: int) -> list[Stage]:
        """The algorithm in the order of its paper."""

    def steps(self, size: int, length: int) -> Iterator[Step]:
        """The rounds of an all-reduce of `length` elements over W ranks, made one at a time."""
        self.check(size)
        if length:
            for stage in self.stages(size, length):
                yield from _side_by_side(stage)

    def cost(self, size: int, length: int) -> Cost:
        """What the rounds cost, from the declarations of their parts: exact, without making a round."""
        self.check(size)
        steps = 0
        elements, messages = np.zeros(size, np.int64), np.zeros(size, np.int64)
        for stage in self.stages(size, length) if length else ():
            steps += _rounds(stage)
            for _, part in stage:
                sent = part.sent()
                # Not +=, which counts a rank once that stands there several times (BetweenBlocks).
                np.add.at(elements, sent.ranks, sent.elements)
                np.add.at(messages, sent.ranks, sent.messages)
        return Cost(steps, int(elements.max()), int(messages.max()))


class GroupCollective(Collective):
    """An algorithm that runs in many groups of one size at once, and so can be a part of another one."""

    @abstractmethod
    def within(self, groups: Groups) -> list[Stage]:
        """The algorithm in every group, over the group's span."""

    def stages(self, size: int, length: int) -> list[Stage]:
        return self.within(Groups.world(size, length))


def _rounds(stage: Stage) -> int:
    return max((start + part.rounds for start, part in stage), default=0)


def _side_by_side(stage: Stage) -> Iterator[Step]:
    running = [(start, part.steps()) for start, part in stage]
    for number in range(_rounds(stage)):
        # A part that has not begun, or has ended, has no exchange in this round of the stage.
        steps = [step for start, rounds in running if start <= number for step in itertools.islice(rounds, 1)]
        yield steps[0] if len(steps) == 1 else _join(steps, stage[0][1].add)


def _join(steps: Sequence[Step], add: bool) -> Step:
    nothing = np.zeros(0, np.int64)  # numpy joins no empty list; a round may have no exchange
    source, target, begin, end = (
        np.concatenate([nothing, *(getattr(step, name) for step in steps)])
        for name in ("source", "target", "begin", "end")
    )
    return Step(source, target, begin, end, add)


def exchange(source: Ints, target: Ints, begin: Ints, end: Ints, add: bool) -> Step:
    """A round of these exchanges without the empty ones; arrays of one shape, flattened."""
    source, target, begin, end = source.ravel(), target.ravel(), begin.ravel(), end.ravel()
    full = end > begin
    if full.all():  # nearly always: without four copies
        return Step(source, target, begin, end, add)
    return Step(source[full], target[full], begin[full], end[full], add)


def by_size(groups: Sequence[Sequence[int]], length: int) -> list[Groups]:
    """Groups of uneven sizes sorted into those of one size each, all over the whole buffer."""
    uniform = []
    for size in sorted({len(group) for group in groups}):
        ranks = np.array([group for group in groups if len(group) == size], np.int64)
        uniform.append(Groups(ranks, np.zeros(len(ranks), np.int64), np.full(len(ranks), length, np.int64)))
    return uniform


def is_power_of_two(size: int) -> bool:
    """Whether size is 1, 2, 4, .."""
    return size & (size - 1) == 0
