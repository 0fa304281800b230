"""Fast aggregation: buckets reduced by the chosen algorithm, overlapped with a process's last backward pass.

gradient = sum over processes of (sum over its workers of g_j)

Buckets go out in one fixed order on every process, each as soon as the last backward pass has filled it and
every bucket before it has gone. On the CPU at most ``IN_FLIGHT`` are under way, the next one waits for the oldest; a
GPU takes them all, and the host waits for it once, at the end of the step or later. Small tensors share a bucket.
Bytes per process: those of the algorithm, 2 (W - 1) / W of the buffer for most; half of it where gradients are sent
in 16 bits (`aggregate/wire.py`).

Source: Goyal et al. 2017, section 4 (overlap with backward); Li et al. 2020, "PyTorch Distributed", section 3.2.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import torch
from torch import nn

from batchscale.aggregate.flat import FlatGradients
from batchscale.aggregate.wire import Wire
from batchscale.comm import Reducer, Reduction, World

IN_FLIGHT = 8
WHAT = "all-reduce of gradients"
_BUCKET_BYTES, _BUCKET_BYTES_OF_GPUS = 4 << 20, 25 << 20


def usual_bucket_bytes(device: torch.device) -> int:
    """Where nothing else is said; NCCL's all-reduces of a few MB are bound by latency from some hundred ranks on."""
    return _BUCKET_BYTES if device.type == "cpu" else _BUCKET_BYTES_OF_GPUS


class FastAggregator:
    """Sums over all workers, equal for every W to rounding.

    Args:
        parameters: the model's; frozen ones are left out, unused ones keep ``grad`` None.
        reducer: how the processes reduce; None for a single one.
        extras: what else is summed, name -> lengths of its pieces; filled before the last backward pass.
        counts: names of whole numbers that are summed, such as a request to stop.
        bucket_bytes: size from which a bucket is sent.
        wire: 16-bit type that gradients are sent in; extras and counts are not. None for their own.

    Attributes:
        flat: the buffer; ``flat.extras[name]`` is to be added to during a pass, and holds the sum after the step.
        buckets: the buffer, cut in the order in which the pieces are reduced.
        asks_later: who uses the sums asks the device by itself, later: for the end of the sum, and for the unused.
    """

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        reducer: Reducer | None = None,
        extras: Mapping[str, Sequence[int]] | None = None,
        counts: Sequence[str] = (),
        bucket_bytes: int = _BUCKET_BYTES,
        wire: torch.dtype | None = None,
    ) -> None:
        self._wire = Wire(wire)
        self._reducer = reducer or Reducer(World())
        self._world = self._reducer.world
        self.flat = FlatGradients(parameters, extras or {}, counts, reducer.zeros if reducer else None)
        self._bucket_of, self.buckets = self._cut(bucket_bytes)
        self._of_gradients = frozenset(self._bucket_of)
        self._missing = [0] * len(self.buckets)
        self._pending: deque[Reduction] = deque()
        self._sent = 0
        self._overlap = self._apart = False
        self._summed = self.flat.buffer[:0]  # as long as the gradients, from the first step on that has passes apart
        self.asks_later = False
        self.flat.on_gradient(self._ready)

    def _cut(self, bucket_bytes: int) -> tuple[list[int], list[torch.Tensor]]:
        """Bucket number of every parameter, and the buckets: cut where a gradient begins; the last holds the counts.

        What is sent in 16 bits shares no bucket with what is not.
        """
        flat = self.flat
        bucket_of: list[int] = []
        first, narrow = flat.pieces[flat.first_gradient][0], self._wire.dtype is not None
        cuts = [0, first] if narrow and first else [0]
        for offset, _ in flat.pieces[flat.first_gradient :]:
            if (offset - cuts[-1]) * flat.buffer.element_size() >= bucket_bytes and bucket_of:
                cuts.append(offset)
            bucket_of.append(len(cuts) - 1)
        if narrow and first + len(flat.gradients) < len(flat.buffer):
            cuts.append(first + len(flat.gradients))
        ends = [*cuts[1:], len(flat.buffer)]
        return bucket_of, [flat.buffer[a:b] for a, b in zip(cuts, ends, strict=True)]

    def attempts(self, apart: bool = False) -> Iterator[None]:
        """One step: ``for _ in attempts(): (backward of each pass; add())``; after it the sums are there.

        Args:
            apart: each pass's gradient stands alone in the buffer until ``add``; so none is sent before the last pass
                has ended. The sums are the same, bit by bit.
        """
        self._wire.begin()
        yield from self._attempt(apart)
        if self._world.size > 1 and not self._wire.ended(self.flat.gradients):
            yield from self._attempt(apart)
            self._wire.ended(self.flat.gradients)
        if not self.asks_later:
            self.flat.detach_unused()

    def _attempt(self, apart: bool) -> Iterator[None]:
        self.flat.attach()
        self._sent, self._apart = 0, apart
        if apart:
            self._summed = torch.zeros_like(self.flat.gradients) if not len(self._summed) else self._summed.zero_()
        yield
        if apart:
            self.flat.gradients.copy_(self._summed)
        self.flat.count_used()
        if self._world.size > 1:
            self._send_until(len(self.buckets))
            while self._pending:
                self._pending.popleft().wait()
            if self._wire.looks or not self.asks_later:
                self._world.exchanges.wait_for_device(WHAT)  # with a bound, before the first copy from it waits without

    def last_pass(self) -> None:
        """Say that the next backward pass is this process's last: its buckets go out while it runs."""
        self._overlap = self._world.size > 1 and not self._apart
        self._missing = [0] * len(self.buckets)
        for bucket in self._bucket_of:
            self._missing[bucket] += 1

    def add(self) -> None:
        """Count in the pass whose backward has just run (autograd has added it up in place)."""
        self._overlap = False
        if self._apart:
            self._summed += self.flat.gradients
            self.flat.gradients.zero_()

    def _ready(self, index: int) -> None:
        if not self._overlap:
            return
        self._missing[self._bucket_of[index]] -= 1
        last = len(self.buckets) - 1  # the last bucket waits for the end of the step: it says which were used
        ready = self._sent
        while ready < last and self._missing[ready] <= 0:
            ready += 1
        self._send_until(ready)
        self._reducer.progress()

    def _send_until(self, end: int) -> None:
        for number, bucket in enumerate(self.buckets[self._sent : end], self._sent):
            if len(self._pending) == IN_FLIGHT and self._world.queue is None:
                self._pending.popleft().wait()
            of_gradients = number in self._of_gradients
            start = partial(self._wire.start, self._reducer) if of_gradients else self._reducer.start
            self._pending.append(start(bucket, WHAT))
        self._sent = max(self._sent, end)

    def close(self) -> None:
        """Take the hooks off the parameters."""
        self.flat.close()
        self._reducer.close()

    def state(self) -> dict[str, torch.Tensor]:
        """Nothing is carried from step to step."""
        return {}
