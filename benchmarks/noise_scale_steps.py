"""What execution.noise_scale_steps=10 costs: CPU-seconds a step with and without it, in turn, as paired ratios.

python benchmarks/noise_scale_steps.py [RECIPE] [PAIRS] [STEPS] [KEY=VALUE ...]

RECIPE (default fashion-mnist-cnn; BATCHSCALE_DATA names its data) is built twice in this process, one thread, passes
alike. PAIRS (default 30) times STEPS (default 20, of which two are measured) of each, by turns in either order.
A recipe of one worker needs minibatch.workers=2 and half its per_worker.
Printed: the median of the ratios with its 90 % interval by order statistics. CPU time is that of all threads.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from pathlib import Path

from batchscale.bench.statistics import median_interval
from batchscale.build.build import build
from batchscale.build.inputs import load_data
from batchscale.comm import World
from batchscale.recipe import load_recipe
from batchscale.training.parts import Parts


class Trained:
    """A run without its folder, some steps at a time."""

    def __init__(self, parts: Parts) -> None:
        self._parts, self._feed, self._step = parts, parts.make_feed(), 0

    def seconds(self, steps: int) -> float:
        """CPU-seconds a step of the next ones."""
        start = time.process_time()
        for step in range(self._step, self._step + steps):
            self._parts.step(step, self._feed.passes(step)).read()
        self._step += steps
        return (time.process_time() - start) / steps

    def close(self) -> None:
        """End the feed, and the aggregator's hooks."""
        self._feed.close()
        self._parts.close()


def main(name: str = "fashion-mnist-cnn", pairs: str = "30", steps: str = "20", *overrides: str) -> None:
    """Time, and print."""
    data = os.environ.get("BATCHSCALE_DATA")
    asked = ["numerics.threads=1", "execution.device=cpu", *overrides]
    recipe = load_recipe(name, asked)
    dataset = load_data(recipe, Path(data) if data else None)
    plain = build(recipe, World(), dataset)
    passes = plain.decided.micro_batch
    measured = load_recipe(name, [*asked, f"numerics.micro_batch={passes}", "execution.noise_scale_steps=10"])
    measuring = build(measured, World(), dataset)
    runs = {"without": Trained(plain), "with": Trained(measuring)}
    for run in runs.values():
        run.seconds(int(steps))
    ratios, without = [], []
    for pair in range(int(pairs)):
        order = ("without", "with") if pair % 2 else ("with", "without")
        seconds = {kind: runs[kind].seconds(int(steps)) for kind in order}
        ratios.append(seconds["with"] / seconds["without"])
        without.append(seconds["without"])
    low, high = median_interval(ratios) or (min(ratios), max(ratios))
    print(f"{name}: passes of {passes}, {1000 * statistics.median(without):.2f} ms of CPU a step without")
    print(f"with / without: median {statistics.median(ratios):.4f}, 90 % {low:.4f} to {high:.4f} of {pairs} pairs")
    for run in runs.values():
        run.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
