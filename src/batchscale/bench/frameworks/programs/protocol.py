"""What the programs of all frameworks share: they start alike, take orders as lines of JSON, and answer in such.

It runs in the environments of other frameworks, so it imports numpy alone.

    <- {"wall_seconds": ..., "cpu_seconds": ..., **notes}      ready: the processes have met
    -> {"prepare": {...}}                                      initial weights, and what to train with
    <- {}
    -> 12                                                      take 12 steps
    <- {"steps": 12, "losses": [...], "wall_seconds": ..., "cpu_seconds": ...}
    -> {"predict": "FOLDER"}                                   logits of this process's share of the test images
    <- {}
    -> (end of file)                                           the process ends
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TextIO

import numpy as np

_PR_SET_PDEATHSIG = 1
_TEST_IMAGES = 64  # in one pass of prediction


@dataclass(frozen=True)
class Setting:
    """What to train with, from the initial weights on.

    Attributes:
        content: the recipe's entries, for batchscale itself.
        per_process: n, examples of one process in a step.
        minibatch: kn, of all processes.
        optimizer: {"name": "sgd", "momentum", "nesterov"} or {"name": "adam", "beta1", "beta2", "epsilon"}.
        order: file of whole numbers (steps, kn): the examples of every step, process after process.
        rates: file of the lr of every step.
    """

    content: dict[str, Any]
    per_process: int
    minibatch: int
    optimizer: dict[str, Any]
    order: str
    rates: str

    def learning_rates(self) -> np.ndarray:
        """Of every step, float32."""
        return np.load(self.rates).astype(np.float32)


@dataclass(frozen=True)
class ProcessWork:
    """What this process is told when it starts.

    Attributes:
        folder: of the weights and examples.
        net: "cnn" or "unet".
        content: the recipe's entries, for batchscale itself.
        data_folder: of the data sets, for batchscale itself.
        processes: W.
        threads: of each.
        ports: free ones of this machine, W of them.
        rank: of this process.
        answers: where its answers go.
    """

    folder: Path
    net: str
    content: dict[str, Any]
    data_folder: str | None
    processes: int
    threads: int
    ports: list[int]
    rank: int
    answers: TextIO

    def weights(self) -> dict[str, np.ndarray]:
        """The initial ones under torch's names, in torch's layout (out, in, height, width)."""
        with np.load(self.folder / "weights.npz") as stored:
            return {name: stored[name] for name in stored.files}

    def examples(self, part: str, channels_last: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Normalised images, float32, and what is to be told of them.

        Args:
            part: "train" or "test".
            channels_last: (N, H, W, C) and not (N, C, H, W).
        """
        images = np.load(self.folder / f"{part}-images.npy", mmap_mode="r")
        if channels_last:
            images = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
        return images, np.load(self.folder / f"{part}-targets.npy", mmap_mode="r")

    def rows(self, setting: Setting) -> np.ndarray:
        """The examples of this process in every step, (steps, n)."""
        first = self.rank * setting.per_process
        return np.load(setting.order)[:, first : first + setting.per_process]


class Training(Protocol):
    """What a framework's program brings."""

    def steps(self, setting: Setting) -> Iterator[Any]:
        """Train from the initial weights on, without end: every step's loss, a number or what becomes one."""

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Logits (m, ...) of test images (m, C, H, W), with the weights of the last step."""


def begin() -> ProcessWork:
    """Call it before the framework is imported: cores, standard output and the parent's death are settled here."""
    told, parent = json.loads(sys.argv[1]), int(sys.argv[2])
    _die_with(parent)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints must not come between the answers
    rank = int(os.environ["RANK"])
    _take_cores(rank, told["threads"])
    return ProcessWork(**{**told, "folder": Path(told["folder"])}, rank=rank, answers=answers)


def serve(work: ProcessWork, make: Callable[[ProcessWork], Training], **notes: Any) -> None:
    """Do what the parent says until it closes the pipe; what is raised is the last line on standard error.

    Args:
        work: of this process.
        make: the training of the framework, as the processes meet.
        notes: facts for the first answer, such as versions.
    """
    try:
        _follow(work, make(work), sys.stdin, notes)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)  # a framework's own end waits for the others, or for threads


def _follow(work: ProcessWork, training: Training, orders: Iterable[str], notes: dict[str, Any]) -> None:
    _answer(work, steps=0, wall_seconds=0.0, cpu_seconds=0.0, **notes)
    losses: Iterator[Any] = iter(())
    for line in orders:
        order = json.loads(line)
        if isinstance(order, int):
            _take_steps(work, losses, order)
        elif "prepare" in order:
            losses = training.steps(Setting(**order["prepare"]))
            _answer(work)
        else:
            _predict(work, training, Path(order["predict"]))


def _take_steps(work: ProcessWork, losses: Iterator[Any], steps: int) -> None:
    wall, cpu = time.perf_counter(), time.process_time()
    taken = [next(losses) for _ in range(steps)]
    numbers = [float(np.asarray(loss)) for loss in taken]  # some frameworks are still at work until a loss is read
    seconds = {"wall_seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
    _answer(work, steps=steps, losses=numbers, **seconds)


def _predict(work: ProcessWork, training: Training, folder: Path) -> None:
    images = np.load(work.folder / "test-images.npy", mmap_mode="r")[work.rank :: work.processes]
    passes = [images[first : first + _TEST_IMAGES] for first in range(0, len(images), _TEST_IMAGES)]
    logits = [training.predict(np.ascontiguousarray(images)) for images in passes]
    np.save(folder / f"logits-{work.rank}.npy", np.concatenate(logits).astype(np.float32))
    _answer(work)


def _answer(work: ProcessWork, **content: Any) -> None:
    print(json.dumps(content), file=work.answers, flush=True)


def _take_cores(rank: int, threads: int) -> None:
    """Run on as many cores as the process may have threads: what every framework's pool of threads goes by."""
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[(rank * threads + place) % len(cores)] for place in range(threads)})


def _die_with(parent: int) -> None:
    """Linux: end when the parent does."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
