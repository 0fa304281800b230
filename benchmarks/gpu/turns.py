"""Contenders in processes of their own, which train in turn on command: forwards, then backwards."""

from __future__ import annotations

import contextlib
import os
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from batchscale.bench.statistics import paired_ratio, spread
from batchscale.training.clock import clock_of
from benchmarks.gpu.beside import Beside
from benchmarks.gpu.contenders import COMPILED, CONTENDERS
from benchmarks.gpu.setting import PROCESSES, Setting
from benchmarks.gpu.traced import traced

_WARM_STEPS = 4


class Served:
    """One contender, within its process; every method is a command.

    Args:
        setting: what is measured.
        name: of the contender.
        folder: of the JPEG files.
    """

    def __init__(self, setting: Setting, name: str, folder: Path | None) -> None:
        self._setting, self._name, self._folder = setting, name, folder
        self._clock, self._cuda = clock_of(setting.where), setting.device == "cuda"

    def warm(self) -> dict[str, Any]:
        """Build it and train some steps, until nothing is new; what that took, and how many steps make a block."""
        begun = time.perf_counter()
        self._trainer = CONTENDERS[self._name](self._setting, self._folder)
        built = time.perf_counter()
        self._seconds(1)
        first = time.perf_counter() - built
        self._seconds(_WARM_STEPS)
        step = self._seconds(_WARM_STEPS) / _WARM_STEPS
        self._steps = max(round(self._setting.block_seconds / step), 2)
        decided = getattr(self._trainer, "decided", dict)()
        return {"build_seconds": built - begun, "first_step_seconds": first, "steps": self._steps, **decided}

    def block(self) -> dict[str, float]:
        """Train a block; images a second by the device's own clock, and the most memory."""
        if self._cuda:
            torch.cuda.reset_peak_memory_stats()
        seconds = self._seconds(self._steps)
        gib = {}
        if self._cuda:
            peaks = {"peak": torch.cuda.max_memory_allocated(), "reserved": torch.cuda.max_memory_reserved()}
            gib = {f"{name}_gib": value / 2**30 for name, value in peaks.items()}
        return {"images_per_second": self._steps * self._setting.step_images / seconds, **gib}

    def trace(self) -> dict[str, Any]:
        """Where its steps wait."""
        return traced(self._trainer.steps, self._setting.of(5, 2), self._setting.where)

    def beside(self) -> dict[str, float]:
        """Its feed alone, and a small call of the main thread beside it."""
        return Beside(self._setting, self._trainer).measure()

    def _seconds(self, steps: int) -> float:
        start = self._clock.mark()
        self._trainer.steps(steps)
        return self._clock.seconds(start, self._clock.mark())


def _serve(pipe: Any, setting: Setting, name: str, folder: Path | None) -> None:
    """A process's life: commands in, answers or errors out."""
    if setting.tiny:
        torch.set_num_threads(1)
    served = Served(setting, name, folder)
    while (command := pipe.recv()) is not None:
        try:
            pipe.send((getattr(served, command)(), ""))
        except Exception:
            traceback.print_exc()
            pipe.send((None, traceback.format_exc().strip().splitlines()[-1]))
    for child in PROCESSES.active_children():
        child.kill()  # a loader's: it watches over the server that has forked it, not over this process
    os._exit(0)  # the feed's threads are not waited for


class Contender:
    """A contender's process, seen from outside.

    Args:
        setting, name, folder: of it.

    Attributes:
        error: why it is out of the race; "" while it is not.
        blocks: its blocks so far.
        start: what its warm-up told.
    """

    def __init__(self, setting: Setting, name: str, folder: Path | None) -> None:
        self.name, self.error = name, ""
        self.blocks: list[dict[str, float]] = []
        self.start: dict[str, Any] = {}
        self._pipe, theirs = PROCESSES.Pipe()
        # No daemon: a loader's processes are its children.
        self._process = PROCESSES.Process(target=_serve, args=(theirs, setting, name, folder))
        self._process.start()
        theirs.close()

    def tell(self, command: str) -> None:
        """Give a command."""
        with contextlib.suppress(OSError):
            self._pipe.send(command)

    def answer(self) -> Any:
        """What the command came to; None where it failed, and the contender is out."""
        try:
            answer, error = self._pipe.recv()
        except (EOFError, OSError):
            answer, error = None, "its process died"
        self.error = self.error or error
        return answer

    def ask(self, command: str) -> Any:
        """Give a command and wait."""
        self.tell(command)
        return self.answer()

    def close(self) -> None:
        """End its process."""
        self.tell(None)  # type: ignore[arg-type]
        self._process.join(10)
        self._process.kill()


@contextlib.contextmanager
def started(setting: Setting, names: Sequence[str], folder: Path | None = None) -> Iterator[list[Contender]]:
    """Contenders that are warm: those that compile at once, the others one by one, as a trial's times ask for."""
    contenders = [Contender(setting, name, folder) for name in names]
    try:
        compiling = [contender for contender in contenders if contender.name in COMPILED]
        for contender in compiling:
            contender.tell("warm")
        for contender in compiling:
            contender.start = contender.answer() or {}
        for contender in contenders:
            if contender not in compiling:
                contender.start = contender.ask("warm") or {}
        yield contenders
    finally:
        for contender in contenders:
            contender.close()


def in_turn(contenders: Sequence[Contender], rounds: int, after_round: Callable[[], None]) -> None:
    """A block of each in every round, the order turned round from round to round."""
    for number in range(rounds):
        for contender in contenders[:: -1 if number % 2 else 1]:
            if not contender.error and (block := contender.ask("block")):
                contender.blocks.append(block)
        after_round()


def rows(contenders: Sequence[Contender], baseline: str) -> dict[str, Any]:
    """Of every contender the median of its images a second, and of the paired ratios to another one's."""
    speeds = {c.name: [block["images_per_second"] for block in c.blocks] for c in contenders}
    document: dict[str, Any] = {}
    for contender in contenders:
        row: dict[str, Any] = {"error": contender.error, "start": contender.start, "blocks": contender.blocks}
        ours, theirs = speeds[contender.name], speeds.get(baseline, [])
        if ours:
            row["images_per_second"] = vars(spread(ours))
            row |= {key: max(block[key] for block in contender.blocks) for key in contender.blocks[0] if "gib" in key}
        if ours and len(ours) == len(theirs):
            row["ratio"] = vars(paired_ratio(ours, theirs))
        document[contender.name] = row
    return document
