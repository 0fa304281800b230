"""Exact aggregation: order-free sums over workers, bitwise the same for every number of processes.

Every worker's tensor g is rounded to a common grid of quantum q and added in float64:

    a = sum_j [(g_j + C) - C],   C = 1.5 * 2^52 * q

Each term is a multiple of q below 2^51 q, and so is every partial sum below 2^53 q: no addition rounds, so no
order matters, between workers, processes, or along any all-reduce. NaN and infinity carry through.

The quantum of a tensor comes from its last aggregated gradient: a worker's values may reach
L = 2^(8 + exponent of max |a|), and q = 2^(log2 L + ceil(log2 k) - 51). For k = 256 that leaves every value 35
bits below the tensor's largest. Values over L are counted in the same sum; a step with any is repeated by all
processes, with L from the true maximum, which the first try has learnt. The first step always is (L = 0).

Cost: one float64 all-reduce a step, 2 (W - 1) / W * 8 bytes a weight, and six passes over a worker's gradient.
Source: ours; the trick of the constant is Dekker 1971 (rounding to a multiple), the exact sum as in
Demmel and Nguyen 2015, "Parallel reproducible summation", section 3, with a fixed grid.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import nn

from batchscale.aggregate.flat import FlatGradients
from batchscale.comm import Reducer, Reduction, World
from batchscale.errors import ExactnessError

_HEADROOM_BITS = 8  # a worker's gradient may be 2^8 times the last aggregated one before a step is repeated
_FALL_BITS = 4  # the range falls by at most 2^4 a step, so that one small gradient does not cause a repeat
_LOWEST = -900  # log2 L of a tensor never seen: below every float32 number
_WHAT = "exact all-reduce of gradients"
_OVER, _BAD = 0, 1  # integer slots behind the sums: tensors over range, tensors not finite


class ExactAggregator:
    """Sums over all workers, one worker a pass, bitwise equal for every W.

    Args:
        parameters: the model's, float32; frozen ones are left out, unused ones keep ``grad`` None.
        workers: k, all workers of all processes.
        reducer: how the processes reduce; None for a single one.
        extras: what else is summed over workers, name -> lengths of its pieces; filled before ``add``.
        counts: names of whole numbers that are summed, such as a request to stop.
        bucket_bytes: of the sums, sent as the last worker's gradients are rounded; None: all at once, after it.

    Attributes:
        flat: the buffer; ``flat.extras[name]`` is one worker's during a pass, and holds the sum after the step.
        repeats: steps repeated so far, the first one's scaling included.
        buckets: the sums, cut in the order in which they are reduced; the last holds what was over range.
        asks_later: who uses the sums asks the device for the unused parameters by itself, later.

    Raises:
        ExactnessError: the parameters are not float32.
    """

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        workers: int,
        reducer: Reducer | None = None,
        extras: Mapping[str, Sequence[int]] | None = None,
        counts: Sequence[str] = (),
        bucket_bytes: int | None = None,
    ) -> None:
        self.flat = FlatGradients(parameters, extras or {}, counts)
        if self.flat.buffer.dtype != torch.float32:
            raise ExactnessError(
                f"numerics.exact=true with weights of {self.flat.buffer.dtype}: exact sums hold float32 gradients; "
                f"use precision=fp32, or numerics.exact=false"
            )
        self._reducer = reducer or Reducer(World())
        self._world = self._reducer.world
        self._worker_bits = math.ceil(math.log2(workers)) if workers > 1 else 0
        device = self.flat.buffer.device
        self._parts = [self.flat.buffer[o : o + length] for o, length in self.flat.pieces]
        count = len(self._parts)
        self._log_range = torch.full((count,), _LOWEST, dtype=torch.int64, device=device)
        self._maxima = torch.zeros(count, dtype=torch.float32, device=device)
        self._sums = self._reducer.zeros(len(self.flat.buffer) + 2, torch.float64)
        step = len(self._sums) if bucket_bytes is None else max(bucket_bytes // self._sums.element_size(), 1)
        self._cuts = [*range(0, max(len(self._sums) - 2, 1), step), len(self._sums)]
        self.buckets = [self._sums[start:end] for start, end in itertools.pairwise(self._cuts)]
        self._is_last, self._pending = False, deque[Reduction]()
        self._grid = torch.zeros(len(self.flat.buffer), dtype=torch.float64, device=device)
        self._piece_of = torch.full((len(self.flat.buffer),), -1, dtype=torch.int64, device=device)
        for index, (offset, length) in enumerate(self.flat.pieces):
            self._piece_of[offset : offset + length] = index
        self.repeats = 0
        self.asks_later = False
        self.flat.on_gradient(lambda index: None)

    def last_pass(self) -> None:
        """Say that the next worker is this process's last: its buckets go out as they are added."""
        self._is_last = len(self.buckets) > 1

    def attempts(self, apart: bool = True) -> Iterator[None]:
        """One step: ``for _ in attempts(): (backward of each worker; add())``, repeated when a value left its range.

        Args:
            apart: of no effect: each worker's gradient stands alone in the buffer until ``add``.
        """
        while True:
            self._begin()
            yield
            if self._finish():
                break
            self.repeats += 1
        if not self.asks_later:
            self.flat.detach_unused()

    def _begin(self) -> None:
        self._sums.zero_()
        self._maxima.zero_()
        log_quantum = self._log_range + (self._worker_bits - 51)
        ones = torch.ones_like(log_quantum, dtype=torch.float64)
        constants = torch.ldexp(1.5 * ones, log_quantum + 52)
        unscaled = constants.new_full((1,), 1.5 * 2.0**52)  # for counts: q = 1
        self._grid = torch.cat([constants, unscaled])[self._piece_of]
        self._limits = torch.ldexp(ones, self._log_range)
        self.flat.attach()

    @torch.no_grad()
    def add(self) -> None:
        """Count in the worker whose backward has just run, and clear its gradient for the next."""
        self.flat.count_used()
        maxima = torch.stack(torch._foreach_norm(self._parts, float("inf")))
        over, bad = maxima.double() > self._limits, ~maxima.isfinite()
        self._maxima = torch.maximum(self._maxima, maxima)
        self._sums[-2:] += torch.stack([(over & ~bad).sum(), bad.sum()])
        for number, bucket in enumerate(self.buckets):
            part = slice(self._cuts[number], min(self._cuts[number + 1], len(self.flat.buffer)))
            grid = self._grid[part]
            bucket[: len(grid)] += (self.flat.buffer[part].double() + grid).sub_(grid)
            if self._is_last:
                self._pending.append(self._reducer.start(bucket, _WHAT))
        self.flat.attach()

    @torch.no_grad()
    def _finish(self) -> bool:
        if not self._is_last:
            self._pending.extend(self._reducer.start(bucket, _WHAT) for bucket in self.buckets)
        while self._pending:
            self._pending.popleft().wait()
        self._is_last = False
        self._world.exchanges.wait_for_device(_WHAT)
        over, bad = self._sums[-2:].tolist()
        if over and not bad:
            self._world.all_reduce_max(self._maxima)
            _, exponent = torch.frexp(self._maxima)
            coarser = torch.where(self._maxima > 0, exponent.long() + _HEADROOM_BITS, self._log_range)
            self._log_range = torch.where(self._maxima.double() > self._limits, coarser, self._log_range)
            return False
        self.flat.attach()
        self.flat.buffer.copy_(self._sums[:-2])
        if bad:  # the bits of a NaN hang on the order of additions: one NaN for all
            self.flat.buffer.masked_fill_(~self.flat.buffer.isfinite(), float("nan"))
            return True
        self._rescale()
        return True

    def _rescale(self) -> None:
        """The next step's ranges, from this step's sums: a pure function of what all processes share."""
        maxima = torch.stack(torch._foreach_norm(self._parts, float("inf")))
        _, exponent = torch.frexp(maxima)
        fallen = (self._log_range - _FALL_BITS).clamp(min=_LOWEST)
        self._log_range = torch.where(maxima > 0, torch.maximum(exponent.long() + _HEADROOM_BITS, fallen), fallen)

    def state(self) -> dict[str, torch.Tensor]:
        """The ranges: they decide the rounding of the next step, so a resume needs them."""
        return {"log_range": self._log_range}

    def close(self) -> None:
        """Take the hooks off the parameters."""
        self.flat.close()
        self._reducer.close()
