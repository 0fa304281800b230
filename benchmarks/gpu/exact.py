"""Exact mode on one GPU: the same bits for W = 1, 2, 3, 8 by Gloo, and after a kill, resumed by another W."""

from __future__ import annotations

import os
import signal
import socket
import tempfile
from pathlib import Path
from typing import Any

import batchscale
from batchscale.training.due import DUES
from benchmarks.gpu.setting import PROCESSES, Setting

_BEFORE, _AFTER = 2, 3  # processes before the kill, and after it


class Run:
    """A run of W processes on one device, begun and not yet waited for.

    Args:
        setting, precision: of the run.
        processes: W.
        out: its folder; None to write nothing.
        kill_at: the step after which its processes kill themselves; None to let them be.
    """

    def __init__(
        self, setting: Setting, precision: str, processes: int, out: Path | None = None, kill_at: int | None = None
    ) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self._pipes, self._ranks = [], []
        for rank in range(processes):
            ours, theirs = PROCESSES.Pipe(duplex=False)
            arguments = (theirs, setting, precision, rank, processes, port, out, kill_at)
            self._ranks.append(PROCESSES.Process(target=_train, args=arguments, daemon=True))
            self._ranks[-1].start()
            theirs.close()
            self._pipes.append(ours)

    def weights(self) -> str:
        """The sha256 of its weights, which all ranks have; else what happened."""
        outcomes = set()
        for pipe, process in zip(self._pipes, self._ranks, strict=True):
            try:
                outcomes.add(pipe.recv())
            except EOFError:
                process.join()
                outcomes.add(f"exit code {process.exitcode}")
        return " / ".join(sorted(outcomes))


def _train(
    pipe: Any, setting: Setting, precision: str, rank: int, processes: int, port: int, out: Path | None,
    kill_at: int | None,
) -> None:  # fmt: skip
    """One rank's life."""
    os.environ.update(
        RANK=str(rank), WORLD_SIZE=str(processes), LOCAL_RANK=str(rank), LOCAL_WORLD_SIZE=str(processes),
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), GLOO_SOCKET_IFNAME="lo", BATCHSCALE_SHARE_GPUS="1",
    )  # fmt: skip
    workers, per_worker, steps = setting.of(8, 4), setting.of(16, 4), setting.of(12, 4)
    side = setting.of(96, 32)
    if kill_at is not None:
        DUES["kill"] = lambda course: _Kill(kill_at)
    recipe = setting.recipe(
        minibatch={"workers": workers, "per_worker": per_worker}, epochs=1, precision=precision,
        numerics={"exact": True}, execution={"device": setting.device, "checkpoint_seconds": 0, "log_steps": 1},
    )  # fmt: skip
    data = setting.dataset(workers * per_worker * steps, side=side)
    result = batchscale.train(recipe, data=data, out=out, resume="auto", quiet=True)
    pipe.send(result.weights_sha256 if result.status == "done" else result.status)


class _Kill:
    """Due after a step: the end, without a word."""

    together = False

    def __init__(self, step: int) -> None:
        self._step = step

    def due(self, course: Any) -> bool:
        """After that step."""
        return bool(course.steps_done == self._step)

    def act(self, course: Any) -> None:
        """As a power cut would."""
        os.kill(os.getpid(), signal.SIGKILL)


def measure(setting: Setting) -> dict[str, Any]:
    """The sha256 of every run's weights by precision; all runs of a precision at once, as they need not be fast."""
    document: dict[str, Any] = {}
    for precision in setting.of(("fp32", "bf16"), ("fp32",)):
        with tempfile.TemporaryDirectory(prefix="batchscale-gpu-") as scratch:
            out = Path(scratch) / "run"
            killed = Run(setting, precision, _BEFORE, out, kill_at=setting.of(6, 2))
            sizes = setting.of((1, 1, 2, 3, 8), (1, 1, 2))
            runs = [(f"W={size}", Run(setting, precision, size)) for size in sizes]
            ended = killed.weights()
            resumed = Run(setting, precision, _AFTER, out)
            found = [(name, run.weights()) for name, run in [*runs, (f"killed, resumed by W={_AFTER}", resumed)]]
        equal = len({weights for _, weights in found}) == 1 and len(found[0][1]) == 64
        document[precision] = {"killed": ended, "weights": found, "equal": equal and ended == f"exit code {-9}"}
        setting.save("exact", document)
    return document
