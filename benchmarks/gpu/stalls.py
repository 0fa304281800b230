"""What stops a training: a checkpoint, an evaluation, the start; by the seam of what is due after a step."""

from __future__ import annotations

import itertools
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import batchscale
from batchscale.training.due import DUES
from benchmarks.gpu.setting import Setting

_STEPS, _WARM = 64, 12


class _Marks:
    """Due after every step: notes when the host came to it."""

    together = False

    def __init__(self, moments: list[float]) -> None:
        self._moments = moments

    def due(self, course: Any) -> bool:
        """Always."""
        return True

    def act(self, course: Any) -> None:
        """On the host's clock: it is the host that is kept."""
        self._moments.append(time.perf_counter())


def measure(setting: Setting) -> dict[str, Any]:
    """Milliseconds that a checkpoint adds to its step, images a second of an evaluation, seconds to the first step."""
    steps, warm = setting.of(_STEPS, 16), setting.of(_WARM, 3)
    saved = [steps // 2, steps // 2 + steps // 8, steps // 2 + steps // 4]
    evaluated, test = warm + steps // 8, setting.of(4096, 32)
    recipe = setting.recipe(
        epochs=1, numerics={"evaluation_chunk": setting.of(512, 16), "threads": setting.of("auto", 1)},
        execution={
            "device": setting.device, "checkpoint_seconds": 1e6, "keep_checkpoints": {"steps": saved},
            "evaluation_at": [evaluated], "log_steps": 1_000_000,
        },
    )  # fmt: skip
    data = setting.dataset(setting.step_images * steps, test)
    moments, usual, before = [], DUES.copy(), _process_seconds()
    begun = time.perf_counter()
    DUES["marks"] = lambda course: _Marks(moments)
    try:
        with tempfile.TemporaryDirectory(prefix="batchscale-gpu-") as scratch:
            result = batchscale.train(recipe, data=data, out=Path(scratch) / "run", quiet=True)
    finally:
        DUES.clear()
        DUES.update(usual)
    seconds = [0.0, 0.0] + [later - earlier for earlier, later in itertools.pairwise(moments)]  # of step s: seconds[s]
    special = {*saved, evaluated, evaluated + 1, len(moments)}
    step = statistics.median(seconds[s] for s in range(warm, len(seconds)) if s not in special)
    return {
        "status": result.status,
        "step_seconds": step,
        "training_images_per_second": setting.step_images / step,
        "checkpoint_milliseconds": [1000 * (seconds[s] - step) for s in saved],
        "checkpoint_and_two_steps_milliseconds": [1000 * (sum(seconds[s : s + 3]) - 3 * step) for s in saved],
        "evaluation_images_per_second": test / max(seconds[evaluated] - step, 1e-9),
        "first_step_seconds": moments[0] - begun,
        "first_step_after_process_start_seconds": before + moments[0] - begun,
    }


def _process_seconds() -> float:
    """Since this process began."""
    ticks = int(Path("/proc/self/stat").read_text(encoding="ascii").rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
