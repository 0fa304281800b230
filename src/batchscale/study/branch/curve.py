"""The losses of a branch along its window, from its records and from those of the run that goes on with it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from batchscale.records.files import is_number
from batchscale.records.run import RunRecords

Chunks = tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class BranchCurve:
    """One branch.

    Attributes:
        status: done, diverged, failed or missing.
        folder: of its run, relative to the study.
        losses: examples since the branch began -> loss on the evaluation set; 0: the trunk's own.
        chunks: (examples, mean loss) of the evaluation set's parts, where the window ends; () where not recorded.
        went_on: whether a further run goes on with it to twice the window.
    """

    status: str
    folder: str
    losses: Mapping[int, float] = field(default_factory=dict)
    chunks: Chunks = ()
    went_on: bool = False

    def at(self, examples: int) -> float | None:
        """The loss after so many examples: infinite where it diverged before; None where it is not known."""
        loss = self.losses.get(examples)
        return math.inf if loss is None and self.status == "diverged" else loss

    def path(self, end: int) -> list[tuple[int, float]]:
        """(examples, loss) up to an end, rising."""
        return [(examples, loss) for examples, loss in sorted(self.losses.items()) if examples <= end]


def evaluated(run: Path) -> dict[int, tuple[float, Chunks]]:
    """Step -> (loss, chunks) of a run's evaluations; a loss that is not finite is infinite, a damaged line is none."""
    evaluations = {}
    for line in RunRecords(run).evaluations():
        step, loss, chunks = line.get("step"), line.get("loss"), line.get("chunks") or ()
        if is_number(step):
            finite = float(loss) if is_number(loss) else math.inf
            evaluations[int(step)] = finite, tuple((int(n), float(value)) for n, value in chunks)
    return evaluations


def pooled(curves: Sequence[tuple[BranchCurve, BranchCurve]]) -> list[tuple[int, float]]:
    """(examples, mean difference over the pairs) of every chunk of the evaluation set; [] where none are recorded.

    Args:
        curves: (branch, branch of factor 1) of each seed.
    """
    pairs = [(a.chunks, b.chunks) for a, b in curves if a.chunks and len(a.chunks) == len(b.chunks)]
    if not pairs:
        return []
    sizes = [examples for examples, _ in pairs[0][0]]
    return [(size, sum(a[place][1] - b[place][1] for a, b in pairs) / len(pairs)) for place, size in enumerate(sizes)]
