"""The ceiling: forward, backward and update alone, on images that lie ready; no communication, no feed.

Plain torch batch norm over a micro-batch, torch's fused SGD. The memory format and the micro-batch are the
fastest of a short calibration in which all W processes train at once, as they will when they are measured.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable

import torch
import torch.distributed as dist

from batchscale.bench.assignment import Assignment
from batchscale.bench.meter import Meter
from batchscale.system.allocator import keep_freed_memory

_READY_STEPS = 16  # different minibatches in memory: enough that none is learnt by heart within a block
_SMALLEST_PASS = 16
_CALIBRATION_SECONDS, _CALIBRATION_ROUNDS = 4.0, 12  # at most, after a round to warm up
_FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def _trainer(assignment: Assignment, memory_format: str, micro_batch: int) -> Callable[[int], None]:
    """The step of this process: its kn / W images in passes of micro_batch, then the update."""
    model = assignment.model().to(memory_format=_FORMATS[memory_format])
    optimizer = assignment.optimizer(model.parameters(), fused=True)
    images, labels = assignment.normalised(_READY_STEPS * assignment.process_images)
    passes = [
        (i.contiguous(memory_format=_FORMATS[memory_format]), label)
        for i, label in zip(torch.split(images, micro_batch), torch.split(labels, micro_batch), strict=True)
        if len(label) == micro_batch
    ]
    per_step = assignment.process_images // micro_batch

    def step(number: int) -> None:
        optimizer.zero_grad(set_to_none=False)
        for pass_number in range(number * per_step, (number + 1) * per_step):
            batch, label = passes[pass_number % len(passes)]
            loss: torch.Tensor = assignment.mean_loss(model(batch), label) / per_step
            loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def _candidates(assignment: Assignment) -> list[tuple[str, int]]:
    """Both memory formats, with passes of all, a half, a quarter, ... of the process's images."""
    formats = _FORMATS if len(assignment.dataset.image_shape) == 3 else ("contiguous",)
    sizes = [assignment.process_images]
    while sizes[-1] % 2 == 0 and sizes[-1] // 2 >= _SMALLEST_PASS:
        sizes.append(sizes[-1] // 2)
    return [(memory_format, size) for memory_format in formats for size in sizes]


def _seconds(steps: list[Callable[[int], None]], round_: int) -> torch.Tensor:
    """One step of every candidate: its seconds, the mean over all processes, so that all choose alike."""
    seconds = torch.zeros(len(steps), dtype=torch.float64)
    for column, step in enumerate(steps):
        start = time.perf_counter()
        step(round_)
        seconds[column] = time.perf_counter() - start
    dist.all_reduce(seconds)
    return seconds / dist.get_world_size()


def _fastest(assignment: Assignment) -> tuple[str, int]:
    """The candidate with the fastest step of some rounds: other work on the machine only ever adds to one."""
    candidates = _candidates(assignment)
    steps = [_trainer(assignment, *candidate) for candidate in candidates]
    dist.init_process_group("gloo")  # for the choice alone: what is measured never communicates
    warm_up = float(_seconds(steps, 0).sum())
    rounds = min(max(int(_CALIBRATION_SECONDS / warm_up), 1), _CALIBRATION_ROUNDS)
    best = torch.stack([_seconds(steps, round_) for round_ in range(1, rounds + 1)]).amin(0)
    dist.destroy_process_group()
    return candidates[int(best.argmin())]


def main(assignment: Assignment, meter: Meter) -> None:
    """Compute without end."""
    keep_freed_memory()  # as the trainer does
    memory_format, micro_batch = _fastest(assignment)
    meter.note(memory_format=memory_format, micro_batch=micro_batch)
    step = _trainer(assignment, memory_format, micro_batch)
    for number in itertools.count():
        step(number)
        meter.step()
