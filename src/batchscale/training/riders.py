"""The riders that every run has: its loss, the task's counts, batch-norm statistics, requests of processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from batchscale.aggregate.riders import ForwardPass, Rider, Sums
from batchscale.minibatch import Minibatch
from batchscale.task.base import Task
from batchscale.worker.batch_norm import RunningAverages
from batchscale.worker.statistics import Statistics

LOSS, COUNTS, STOP, NEWS = "loss", "counts", "stop", "news"


class LossRider(Rider):
    """The loss of the step: the mean over its kn examples."""

    name = LOSS
    lengths = (1,)
    decides = True

    def fill(self, sums: Sums, forward_pass: ForwardPass) -> None:
        """Add the pass's share; it is divided by kn already."""
        sums.real.add_(forward_pass.loss)


_EXACT = 1 << 24  # whole numbers up to it are exact in float32
_DIGIT_BITS, _DIGITS = 12, 3  # a sum of 4096 such digits, below 2^24, is exact in float32


class CountsRider(Rider):
    """The task's whole numbers over the examples as trained on, such as how many were told wrong.

    Where a step's counts may pass 2^24, c = d_0 + 2^12 d_1 + 2^24 d_2: the digits are summed, each exact in float32. So
    counts of pixels are exact up to 2^40, in steps of up to 4096 passes over all processes.

    Args:
        task: of the run.
        examples: most of one step, kn.
    """

    name = COUNTS
    decides = True

    def __init__(self, task: Task, examples: int) -> None:
        self._task = task
        small = task.largest_count is not None and examples * task.largest_count < _EXACT
        self._in_digits = not small
        self.whole_numbers = (1 if small else _DIGITS) * task.training_counts

    def fill(self, sums: Sums, forward_pass: ForwardPass) -> None:
        """Add the digits of the counts of the pass."""
        if self.whole_numbers:
            counts = self._task.counts(forward_pass.outputs, forward_pass.targets)
            sums.whole.add_(_digits(counts) if self._in_digits else counts)


def _digits(counts: torch.Tensor) -> torch.Tensor:
    """int64 (digits x counts,), the lowest digit of every count first; the highest digit holds the rest."""
    counts, lowest = counts.long(), (1 << _DIGIT_BITS) - 1
    return torch.cat([counts & lowest, counts >> _DIGIT_BITS & lowest, counts >> 2 * _DIGIT_BITS])


def counts_of(digits: Sequence[float], length: int) -> list[int]:
    """So many counts, of whose digits the loop is told."""
    if len(digits) == length:
        return [int(count) for count in digits]
    parts = [digits[number * length : (number + 1) * length] for number in range(_DIGITS)]
    return [
        sum(int(digit) << number * _DIGIT_BITS for number, digit in enumerate(one)) for one in zip(*parts, strict=True)
    ]


class StatisticsRider(Rider):
    """Means and unbiased variances of every batch norm, averaged over k workers, for the running averages.

    Whole numbers: how many workers passed each layer over (layer drop, frozen layers), whose averages then wait.

    Args:
        statistics: what passes leave.
        averages: what the sum moves.
    """

    name = "statistics"
    tells = False
    decides = expects = True

    def __init__(self, statistics: Statistics, averages: RunningAverages) -> None:
        self._statistics, self._averages = statistics, averages
        self.lengths, self.whole_numbers = statistics.chunks, statistics.layers

    def fill(self, sums: Sums, forward_pass: ForwardPass) -> None:
        """Add what the pass has left in ``Statistics``."""
        sums.real.add_(self._statistics.summed() / forward_pass.minibatch.workers)
        if absent := self._statistics.absent():
            sums.whole[absent] += forward_pass.workers

    def update(self, sums: Sums, minibatch: Minibatch) -> None:
        """Move the running averages once, by the mean over the workers."""
        absent = sums.on_host()
        shares = [number / minibatch.workers for number in absent] if any(absent) else []
        self._averages.update(sums.real, shares)


class Request(Rider):
    """Something that one process asks of all, so that they act after the same step: to stop, to share news.

    Args:
        name: of the request.
    """

    whole_numbers = 1
    decides = True

    def __init__(self, name: str) -> None:
        self.name = name
        self._asks: Callable[[], bool] = bool  # nothing, until somebody listens: bool() is False

    def ask_by(self, asks: Callable[[], bool]) -> None:
        """Let this function say, once a step, whether this process asks."""
        self._asks = asks

    def begin(self, sums: Sums) -> None:
        """Bring 1 where this process asks."""
        sums.whole.fill_(float(self._asks()))
