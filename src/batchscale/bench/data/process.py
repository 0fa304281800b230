"""The process of a contender: its minibatches without end, each looked at, their images counted.

CPU seconds are those of all processes: of this one, its loader workers and its decoders.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from batchscale.bench.data.assignment import DataAssignment
from batchscale.bench.data.contenders import OURS
from batchscale.bench.data.feed import feed_minibatches
from batchscale.bench.data.loaders import LOADERS
from batchscale.bench.meter import Meter
from batchscale.data.examples import Pairs
from batchscale.errors import ProcessError

ASSIGNMENT = DataAssignment


def minibatches(assignment: DataAssignment) -> Iterator[Pairs]:
    """The contender's: float images (kn, C, H, W), normalised, and labels (kn,), without end."""
    return feed_minibatches(assignment) if assignment.contender in OURS else LOADERS[assignment.contender](assignment)


def tree_seconds() -> float:
    """CPU seconds of this process and all others of its group: loader workers, decoders; since each began."""
    tick, total, own = os.sysconf("SC_CLK_TCK"), time.process_time(), os.getpid()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "stat").read_text().rsplit(")", 1)[1].split()
        except OSError:  # it has ended
            continue
        if int(words[2]) == os.getpgrp() and int(folder.name) != own:
            total += (int(words[11]) + int(words[12])) / tick  # utime, stime
    return total


def check(images: torch.Tensor, labels: torch.Tensor, shape: tuple[int, ...]) -> None:
    """See that this is a minibatch to train on: what is not has no speed.

    Raises:
        ProcessError: it is not.
    """
    if images.dtype != torch.float32 or images.shape[1:] != shape or labels.shape != images.shape[:1]:
        raise ProcessError(
            f"made images {images.dtype} {list(images.shape)} with labels {list(labels.shape)}; "
            f"float32 images of {list(shape)} are to be made"
        )


class _Delivered:
    """Images delivered since the last answer."""

    images = 0

    def take(self) -> int:
        images, self.images = self.images, 0
        return images


def main(assignment: DataAssignment, meter: Meter) -> None:
    """Make minibatches without end."""
    delivered, shape = _Delivered(), assignment.dataset.image_shape
    meter.count_cpu(tree_seconds)
    meter.ask(images=delivered.take)
    for images, labels in minibatches(assignment):
        check(images, labels, shape)
        delivered.images += len(labels)
        meter.step()
