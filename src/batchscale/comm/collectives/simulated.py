"""The simulated world: schedules of thousands of ranks run, and counted, in one process.

With data, a round first reads every slice that is sent and then writes it, so that it is simultaneous; without,
slices are only counted. Memory with data: the buffers and once what a round sends.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from batchscale.comm.collectives.schedule import Collective, Ints, Step


@dataclass(frozen=True)
class Counts:
    """What a schedule was seen to send.

    Args:
        steps: rounds.
        messages, elements: sent by every rank (W,).
        crossing_messages, crossing_elements: of these, sent to another host (W,); zeros where hosts are not known.
    """

    steps: int
    messages: Ints
    elements: Ints
    crossing_messages: Ints
    crossing_elements: Ints

    @property
    def elements_sent(self) -> int:
        """By the rank that sends most."""
        return int(self.elements.max())

    @property
    def total_elements(self) -> int:
        """By all ranks."""
        return int(self.elements.sum())


class _Counter:
    def __init__(self, size: int, hosts: Sequence[Sequence[int]] | None) -> None:
        self._size, self._steps = size, 0
        self._host_of = np.zeros(size, np.int64)
        for number, host in enumerate(hosts or ()):
            self._host_of[list(host)] = number
        self._several_hosts = len(hosts or ()) > 1
        self._sent = np.zeros((4, size), np.int64)

    def add(self, step: Step) -> None:
        self._steps += 1
        elements = step.end - step.begin
        self._add(0, step.source, elements)
        if self._several_hosts:
            crosses = self._host_of[step.source] != self._host_of[step.target]
            self._add(2, step.source[crosses], elements[crosses])

    def _add(self, row: int, source: Ints, elements: Ints) -> None:
        self._sent[row] += np.bincount(source, minlength=self._size)
        # float64 is exact here: a rank does not send 2^53 elements in a round
        self._sent[row + 1] += np.bincount(source, elements, self._size).astype(np.int64)

    def counts(self) -> Counts:
        return Counts(self._steps, *self._sent)


def count(collective: Collective, size: int, length: int, hosts: Sequence[Sequence[int]] | None = None) -> Counts:
    """Count what an all-reduce sends, round by round, without data.

    Args:
        collective: the algorithm.
        size: W, ranks.
        length: elements of the buffer.
        hosts: ranks of every host, to count what crosses between hosts.
    """
    counter = _Counter(size, hosts)
    for step in collective.steps(size, length):
        counter.add(step)
    return counter.counts()


def simulate(
    collective: Collective, buffers: Any, hosts: Sequence[Sequence[int]] | None = None, wire: Any = None
) -> Counts:
    """All-reduce the buffers of all ranks in place.

    buffers[r] <- sum over ranks of buffers, added in the order that real processes add them

    Args:
        collective: the algorithm.
        buffers: (W, length), contiguous; a numpy array, or a CPU tensor for types that numpy does not have.
        hosts: ranks of every host, to count what crosses between hosts.
        wire: of tensors: the type that slices are sent in (torch.bfloat16, torch.float16); None for their own.

    Returns:
        What was sent.
    """
    size, length = buffers.shape
    flat = buffers.reshape(-1)
    counter = _Counter(size, hosts)
    for step in collective.steps(size, length):
        counter.add(step)
        rows = [(step.target[i] * length + within, step.source[i] * length + within) for i, within in _turns(step)]
        sent = [flat[source] for _, source in rows]
        if wire is not None:
            sent = [values.to(wire).to(values.dtype) for values in sent]
            if not step.add:  # the sender holds what the others get
                for (_, source), values in zip(rows, sent, strict=True):
                    flat[source] = values
        for (target, _), values in zip(rows, sent, strict=True):
            flat[target] = flat[target] + values if step.add else values
    return counter.counts()


def _turns(step: Step) -> Iterator[tuple[Ints, Ints]]:
    """The round's exchanges so that a target gets one slice a turn: for every element its exchange and its place."""
    # numpy would write a target that stands twice in an index once, so each turn holds it at most once; stable, as the
    # slices of a target are added in the order of the schedule.
    order = np.argsort(step.target, kind="stable")
    target = step.target[order]
    first = np.searchsorted(target, target)
    turn = np.empty_like(order)
    turn[order] = np.arange(len(order)) - first
    for number in range(int(turn.max(initial=-1)) + 1):
        chosen = np.flatnonzero(turn == number)
        lengths = step.end[chosen] - step.begin[chosen]
        starts = np.cumsum(lengths) - lengths
        yield (
            np.repeat(chosen, lengths),
            np.arange(int(lengths.sum())) + np.repeat(step.begin[chosen] - starts, lengths),
        )
