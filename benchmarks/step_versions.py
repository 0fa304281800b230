"""The training step of two versions of the source, in turn in one run: is the working tree slower than a commit?

    python benchmarks/step_versions.py COMMIT [--only SETTING ...] [--pairs 40] [--out FILE]

The U-Net wants the data set of its recipe (BATCHSCALE_DATA=DIR).

A process a version holds a built run and waits. In turn each trains the same number of steps on command; which is first
changes from pair to pair, and both are started anew after some pairs. Printed for each setting: the median of the
paired ratios new / old of wall and of CPU seconds, its 90 % interval by order statistics, the verdict by 2 %.
Pairs of one start are not independent: where starts differ, the true interval is wider.

Source of the interval: Hettmansperger and McKean 2011, section 1.5 (confidence interval of the median).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, Any, cast

ROOT = Path(__file__).resolve().parent.parent
MARGIN = 1.02
PAIRS_A_START = 7  # then both are started anew: where memory lies differs by start, and can weigh a percent
SETTINGS = {
    "small net, kn = 32": ("digits-cnn",),
    "kn = 512 in passes of 128": ("digits-cnn", "minibatch.workers=16", "numerics.micro_batch=128"),
    "exact, kn = 256": ("digits-cnn", "minibatch.workers=8", "numerics.exact=true"),
    "U-Net": (
        "nuclei-unet",
        "minibatch.workers=4",
        "minibatch.per_worker=4",
        "data.augment.size=128",
        "numerics.micro_batch=4",
    ),
    "noise and averages": ("digits-cnn", "optimizer.gradient_noise=0.1", "model.ema_decay=0.99"),
}
STEPS = {
    "small net, kn = 32": 150,
    "kn = 512 in passes of 128": 20,
    "exact, kn = 256": 15,
    "noise and averages": 100,
    "U-Net": 4,
}


def work(recipe_name: str, overrides: list[str]) -> None:
    """A process of one version: for every line on standard input, train so many steps and say how long they took."""
    try:
        from batchscale.build.build import build
        from batchscale.build.inputs import load_data
    except ImportError:  # versions before 2026-11-29
        from batchscale.engine.build import build  # type: ignore[import-not-found, no-redef]
        from batchscale.engine.inputs import load_data  # type: ignore[import-not-found, no-redef]
    import torch

    from batchscale.comm import World
    from batchscale.recipe import load_recipe

    passes = [] if any("micro_batch" in override for override in overrides) else ["numerics.micro_batch=32"]
    fixed = ["epochs=1e6", "numerics.threads=1", *passes]
    recipe = load_recipe(recipe_name, [*overrides, *fixed])
    parts = build(recipe, World.connect(torch.device("cpu"), 60.0), load_data(recipe, None))
    feed, step = parts.make_feed(), 0
    for line in sys.stdin:
        start, cpu = time.perf_counter(), time.process_time()
        for _ in range(int(line)):
            answer = parts.step(step, feed.passes(step))
            getattr(answer, "read", lambda: None)()
            step += 1
        seconds = {"wall": time.perf_counter() - start, "cpu": time.process_time() - cpu}
        print(json.dumps(seconds), flush=True)


class Version:
    """A process that trains steps of one version of the source on command."""

    def __init__(self, source: Path, arguments: tuple[str, ...]) -> None:
        environment = {**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, __file__, "--work", *arguments]
        self._process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def train(self, steps: int) -> dict[str, float]:
        """Wall and CPU seconds of so many steps."""
        entry, answers = cast(IO[str], self._process.stdin), cast(IO[str], self._process.stdout)
        entry.write(f"{steps}\n")
        entry.flush()
        seconds: dict[str, float] = json.loads(answers.readline())
        return seconds

    def close(self) -> None:
        """End the process."""
        cast(IO[str], self._process.stdin).close()
        self._process.wait()


def verdict(high: float, low: float) -> str:
    """What an interval of ratios says."""
    if high < MARGIN:
        return "not slower"
    return "slower" if low > MARGIN else "not resolved"


def compare(old: Path, new: Path, name: str, pairs: int) -> dict[str, Any]:
    """The paired ratios of one setting."""
    from batchscale.bench.statistics import median_interval  # here: an old version's process has none

    ratios: dict[str, list[float]] = {"wall": [], "cpu": []}
    while len(ratios["wall"]) < pairs:
        versions = {"old": Version(old, SETTINGS[name]), "new": Version(new, SETTINGS[name])}
        try:
            for version in versions.values():
                version.train(STEPS[name])  # what a first step pays
            for pair in range(PAIRS_A_START):
                order = ("old", "new") if pair % 2 else ("new", "old")
                seconds = {key: versions[key].train(STEPS[name]) for key in order}
                for kind, values in ratios.items():
                    values.append(seconds["new"][kind] / seconds["old"][kind])
        finally:
            for version in versions.values():
                version.close()
    row: dict[str, Any] = {"setting": name, "steps": STEPS[name], "pairs": len(ratios["wall"])}
    for kind, values in ratios.items():
        low, high = median_interval(values) or (min(values), max(values))
        median = statistics.median(values)
        row[kind] = {
            "median": round(median, 4),
            "interval": [round(low, 4), round(high, 4)],
            "verdict": verdict(high, low),
        }
    return row


def main() -> None:
    """Compare, print, and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commit")
    parser.add_argument("--only", nargs="+", choices=list(SETTINGS), default=list(SETTINGS))
    parser.add_argument("--pairs", type=int, default=42)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    git = ["git", "-C", str(ROOT), "worktree"]
    with tempfile.TemporaryDirectory() as scratch:
        old = Path(scratch) / "old"
        subprocess.run([*git, "add", "--detach", "--quiet", old, options.commit], check=True)
        try:
            rows = []
            for name in options.only:
                rows.append(compare(old / "src", ROOT / "src", name, options.pairs))
                load = os.getloadavg()[0]
                for kind in ("wall", "cpu"):
                    ratio = rows[-1][kind]
                    low, high = ratio["interval"]
                    print(f"{name:28} {kind:5} {ratio['median']:.3f} ({low:.3f} to {high:.3f})  {ratio['verdict']}")
                print(f"{'':28} load {load:.1f}", flush=True)
                rows[-1]["load"] = round(load, 2)
        finally:
            subprocess.run([*git, "remove", "--force", old], check=True)
    if options.out:
        options.out.write_text(json.dumps({"commit": options.commit, "rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        work(sys.argv[2], sys.argv[3:])
    else:
        main()
