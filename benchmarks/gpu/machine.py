"""What the machine is, and its two ceilings: a copy within the device's memory, and a product of bfloat16 matrices."""

from __future__ import annotations

import contextlib
import platform
import subprocess
from collections.abc import Callable
from typing import Any

import torch
import torchvision

import batchscale
from batchscale.bench.statistics import spread
from batchscale.records.provenance import cpu_model
from batchscale.system.cores import available_cores
from batchscale.training.clock import clock_of
from benchmarks.gpu.setting import Setting

_REPEATS = 5


def measure(setting: Setting) -> dict[str, Any]:
    """Names, versions, terabytes a second (read and written), TFLOP/s."""
    device = setting.where
    source = torch.ones(setting.of(1 << 30, 1 << 20), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    side = setting.of(8192, 128)
    factors = [torch.randn(side, side, device=device).bfloat16() for _ in range(2)]
    copies = _rates(device, lambda: target.copy_(source), 2 * len(source) / 1e12, setting.of(20, 2))
    products = _rates(device, lambda: factors[0] @ factors[1], 2 * side**3 / 1e12, setting.of(20, 2))
    return {
        "device": torch.cuda.get_device_name(device) if setting.device == "cuda" else cpu_model(),
        "driver": _driver() if setting.device == "cuda" else None,
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "cudnn": torch.backends.cudnn.version() if setting.device == "cuda" else None,
        "python": platform.python_version(),
        "batchscale": batchscale.__version__,
        "cores": available_cores(),
        "copy_terabytes_per_second": vars(spread(copies)),
        "bf16_teraflops": vars(spread(products)),
    }


def _rates(device: torch.device, act: Callable[[], Any], amount: float, calls: int) -> list[float]:
    """Amount a second of some blocks of calls, behind one that warms up."""
    clock, rates = clock_of(device), []
    for _ in range(_REPEATS + 1):
        start = clock.mark()
        for _ in range(calls):
            act()
        rates.append(calls * amount / clock.seconds(start, clock.mark()))
    return rates[1:]


def _driver() -> str:
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(query, capture_output=True, text=True, timeout=5, check=True).stdout.split("\n")[0]
    return "unknown"
