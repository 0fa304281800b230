"""What a feed delivers alone, and what a small call of the main thread takes while it works."""

from __future__ import annotations

import statistics
import threading
import time
from typing import Any

import torch

from batchscale.structure import num_examples
from benchmarks.gpu.setting import Setting

_CALLS = 200  # of a block


class Beside:
    """A feed, drained as fast as it delivers.

    Args:
        setting: what is measured.
        trainer: whose feed it is.
    """

    def __init__(self, setting: Setting, trainer: Any) -> None:
        self._setting, self._trainer = setting, trainer
        self._small = torch.ones(16, device=setting.where)

    def measure(self) -> dict[str, float]:
        """Images a second of the feed alone; microseconds of a small call alone, and beside the feed."""
        seconds = self._setting.of(8.0, 0.2)
        time.sleep(self._setting.of(1.0, 0.1))  # until the feed has made what it makes ahead
        alone = self._call_microseconds(seconds / 4)
        stop, counted = threading.Event(), [0]
        drain = threading.Thread(target=self._drain, args=(stop, counted))
        start = time.perf_counter()
        drain.start()
        beside = self._call_microseconds(seconds / 4)
        stop.set()
        drain.join()
        images_beside = counted[0] / (time.perf_counter() - start)
        return {
            "feed_images_per_second": self._alone(seconds),
            "feed_beside_calls_images_per_second": images_beside,
            "call_alone_microseconds": alone,
            "call_beside_microseconds": beside,
        }

    def _alone(self, seconds: float) -> float:
        images, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds or not images:
            images += self._next()
        self._wait()
        return images / (time.perf_counter() - start)

    def _drain(self, stop: threading.Event, counted: list[int]) -> None:
        if self._setting.device == "cuda":
            torch.cuda.set_device(self._setting.where)
        while not stop.is_set():
            counted[0] += self._next()

    def _next(self) -> int:
        return sum(num_examples(batch.targets) for batch in self._trainer.next_passes())

    def _call_microseconds(self, seconds: float) -> float:
        """The median over blocks of calls, so that one pause of the machine is no block's."""
        blocks: list[float] = []
        begun = time.perf_counter()
        while time.perf_counter() - begun < seconds or not blocks:
            start = time.perf_counter()
            for _ in range(_CALLS):
                self._small.add_(1.0)
            blocks.append((time.perf_counter() - start) / _CALLS * 1e6)
            self._wait()
        return statistics.median(blocks)

    def _wait(self) -> None:
        if self._setting.device == "cuda":
            torch.cuda.synchronize()
