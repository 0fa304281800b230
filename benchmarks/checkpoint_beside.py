"""How long a checkpoint blocks the training thread: written by it, and beside it; ResNet-50 with momentum, 205 MB.

python benchmarks/checkpoint_beside.py [FOLDER] [ROUNDS]

In turn in one run, in FOLDER (the default: a temporary one): medians, and the median of paired ratios with its
interquartile range. `beside` is what `Saver.begin` takes when the checkpoint before is on the disk, as it mostly is;
`until it is there` adds what the thread takes after that.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torchvision.models import resnet50

from batchscale.bench.statistics import paired_ratio, spread
from batchscale.training import checkpoint as checkpoints
from batchscale.training.checkpoint import Checkpoint
from batchscale.training.saving import Saver


def seconds(work: Callable[[], object]) -> float:
    """Of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main(folder: Path, rounds: int) -> None:
    """Both ways in turn, each in a folder of its own."""
    torch.set_num_threads(1)
    model = resnet50()
    state = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    state |= {f"optimizer.{name}": torch.randn_like(p) for name, p in model.named_parameters()}
    for name in ("before", "beside"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    saver = Saver(folder / "beside")
    times: dict[str, list[float]] = {"by the training thread": [], "beside it": [], "until it is there": []}
    for step in range(1, rounds + 2):
        checkpoint = Checkpoint(step, state, {}, {}, {})
        row = [
            seconds(lambda: checkpoints.save(folder / "before", checkpoint)),  # noqa: B023
            seconds(lambda: saver.begin(checkpoint, lambda step: False)),  # noqa: B023
            seconds(saver.wait),
        ]
        for name, value in zip(times, row, strict=True):
            if step > 1:  # the first one makes the buffer
                times[name].append(value)
    for name, values in times.items():
        print(f"{name}: {1000 * spread(values).median:.0f} ms (iqr {1000 * spread(values).iqr:.0f})")
    ratio = paired_ratio(times["beside it"], times["by the training thread"])
    print(f"blocked, beside it / by it: {ratio.median:.3f} (iqr {ratio.iqr:.3f}), {rounds} pairs")


if __name__ == "__main__":
    place = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp())
    try:
        main(place, int(sys.argv[2]) if len(sys.argv) > 2 else 9)
    finally:
        if len(sys.argv) < 2:
            shutil.rmtree(place)
