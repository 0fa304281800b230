"""One part of the measurement: python -m benchmarks.gpu PART [--out DIR] [--device cpu --tiny].

machine   names, versions, two ceilings
exact     the same bits for any number of processes, and after a kill
trace     where steps wait
rates     images a second from memory, beside plain PyTorch
jpeg      from JPEG files, beside a DataLoader
stalls    checkpoints, evaluations, the start
table     what the parts have found; exits 1 where a bar is missed
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from pathlib import Path

PARTS = ("machine", "exact", "trace", "rates", "jpeg", "stalls", "table")


def main() -> int:
    """Run a part, keep its document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--out", type=Path, default=Path("build/gpu"))
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="a rehearsal: a small net, few steps")
    options = parser.parse_args()
    if options.tiny:
        os.environ["TORCH_COMPILE_DISABLE"] = "1"  # a rehearsal proves the way, and not the compiler
    from benchmarks.gpu.setting import Setting

    part = importlib.import_module(f"benchmarks.gpu.{options.part}")
    setting = Setting(options.device, options.tiny, options.out)
    document = part.measure(setting)
    if options.part == "table":
        return int(document)
    setting.save(options.part, document)
    return 0


if __name__ == "__main__":
    sys.exit(main())
