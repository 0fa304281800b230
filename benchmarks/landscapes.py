"""The landscapes of the lab: small and large minibatch, weight decay 0 and 5e-4, by one command, bit for bit again.

python benchmarks/landscapes.py OUT [--data DIR] [--processes W] [--epochs E] [--points P] [--examples M]

After Li et al. 2018, figures 2 to 5, on Fashion-MNIST's small net with batch norm (fashion-mnist-cnn, one lr for both):

OUT/kn128-wd0 ...     four runs, kn = 128 and 4,096 (n = 32); ended ones are kept
OUT/around-1          along one random direction around each run, training and test
OUT/around-2          over the plane of two, all four on one scale
OUT/line-wd0, -wd5e-4 from the small minibatch's weights to the large one's (Keskar et al. 2016, figure 3)
OUT/distance          |w - w0| against log t (Hoffer et al. 2017, figure 2)

Each has findings.json and report.html; OUT/around-1.png, OUT/around-2.png and their SVGs hold the figures. What was
killed goes on by the same command. Printed: the sentences, and a sha256 of every document's numbers.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import time
from pathlib import Path

from batchscale.records.findings import read_findings
from batchscale.report.draw.file import write_figures

_RECIPE = "fashion-mnist-cnn"
_SIZES, _DECAYS = {"kn128": 4, "kn4096": 128}, {"wd0": 0.0, "wd5e-4": 5e-4}
_KEPT = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096]


def call(*words: object) -> None:
    """A command of batchscale, in a process of its own."""
    subprocess.run([sys.executable, "-m", "batchscale", *map(str, words)], check=True, stdout=subprocess.DEVNULL)


def train(options: argparse.Namespace, out: Path, workers: int, decay: float) -> None:
    """One of the four runs; an ended one stays."""
    steps = round(options.epochs * 60_000 / (32 * workers))
    kept = [step for step in _KEPT if step < steps]
    overrides = [
        f"minibatch.workers={workers}", f"optimizer.weight_decay={decay}", f"epochs={options.epochs}",
        "learning_rate.scaling=none", f"execution.keep_checkpoints={{steps: {kept}}}", "numerics.threads=1",
    ]  # fmt: skip
    call("train", _RECIPE, *overrides, "--out", out, "--resume=auto", "--processes", options.processes, *options.data)


def measure(options: argparse.Namespace, kind: str, runs: list[Path], out: Path, *flags: object) -> None:
    """A measure of runs, its page, its sentence and the sha256 of its numbers."""
    start = time.monotonic()
    call("measure", kind, *runs, *flags, "--out", out, "--processes", options.processes, *options.data)
    call("report", out)
    findings = read_findings(out)
    numbers = json.dumps(findings.result, sort_keys=True).encode()
    seconds, digest = time.monotonic() - start, hashlib.sha256(numbers).hexdigest()
    print(f"{out.name} ({seconds:.0f} s): {findings.answer}\n  {digest}", flush=True)


def draw(folder: Path, kind: str) -> None:
    """The figures of one kind beside each other, as PNG and SVG beside the folder."""
    figures = [figure for figure in read_findings(folder).figures if figure.id.startswith(kind)]
    write_figures(figures, "", folder)


def main() -> None:
    """Train, measure, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--data", metavar="DIR")
    parser.add_argument("--processes", type=int, default=2, metavar="W")
    parser.add_argument("--epochs", type=float, default=10, metavar="E")
    parser.add_argument("--points", type=int, default=25, metavar="P")
    parser.add_argument("--examples", type=int, default=5000, metavar="M")
    options = parser.parse_args()
    options.data = ["--data", options.data] if options.data else []
    runs = {(size, decay): options.out / f"{size}-{decay}" for decay in _DECAYS for size in _SIZES}
    for (size, decay), out in runs.items():
        train(options, out, _SIZES[size], _DECAYS[decay])
    every, small = list(runs.values()), ("--points", options.points, "--examples", options.examples)
    measure(options, "landscape", every, options.out / "around-1", "--form", "around", "--dimensions", 1, *small)
    measure(options, "landscape", every, options.out / "around-2", "--form", "around", *small)
    for decay in _DECAYS:
        ends = [runs[size, decay] for size in _SIZES]
        measure(options, "landscape", ends, options.out / f"line-{decay}", *small)
    measure(options, "distance", every, options.out / "distance")
    draw(options.out / "around-1", "loss")
    draw(options.out / "around-2", "loss-map")


if __name__ == "__main__":
    main()
