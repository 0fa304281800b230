"""numerics.threads=auto on cores that are free and on cores that busy loops use: what it chooses, and what that gives.

python benchmarks/shared_cores.py [RECIPE [key=value ...]]

RECIPE (default fashion-mnist-cnn; BATCHSCALE_DATA names its data) on one process, by turns with one thread a core, with
one thread, and with the threads that auto chose there (each situation's choices are counted). Medians of a step's time
with interquartile range; the median of paired ratios. The busy loops have this process's niceness, one a core.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import torch

from batchscale.bench.statistics import paired_ratio, spread
from batchscale.bench.turns import in_turn
from batchscale.build.build import build
from batchscale.build.inputs import load_data
from batchscale.comm import World
from batchscale.data.examples import Splits
from batchscale.launch.hardware import own_cores
from batchscale.recipe import Recipe, load_recipe
from batchscale.training.parts import Parts

CHOICES, ROUNDS, BLOCK_SECONDS = 7, 9, 0.5


@contextlib.contextmanager
def busy(loops: int) -> Iterator[None]:
    """So many endless loops beside what is timed."""
    running = [subprocess.Popen(["sh", "-c", "while :; do :; done"]) for _ in range(loops)]
    try:
        time.sleep(0.2)
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def choose(recipe: Recipe, world: World, dataset: Splits) -> tuple[list[int], list[float], Parts]:
    """Threads chosen several times, what a choice adds to a start, and the parts of a run."""
    threads, added, micro_batch = [], [], {"micro_batch": recipe.minibatch.per_worker}
    while True:
        start = time.perf_counter()
        build(recipe, world, dataset, before={**micro_batch, "cores_per_thread": 1}).close()
        between = time.perf_counter()
        parts = build(recipe, world, dataset, before=micro_batch)
        added.append(time.perf_counter() - between - (between - start))
        threads.append(parts.decided.threads)
        if len(threads) == CHOICES:
            return threads, added, parts
        parts.close()


def block(parts: Parts, threads: int, seconds: float) -> float:
    """Seconds of a step with so many threads, over about so many seconds."""
    torch.set_num_threads(threads)
    feed = parts.make_feed()  # whose thread takes the number on when it starts
    parts.step(0, feed.passes(0))
    start, steps = time.perf_counter(), 0
    while not steps or time.perf_counter() - start < seconds:
        steps += 1
        parts.step(steps, feed.passes(steps))
    taken = time.perf_counter() - start
    feed.close()
    return taken / steps


def main(name: str, overrides: list[str]) -> None:
    """Both situations."""
    recipe = load_recipe(name, [*overrides, "epochs=1e6", "execution.device=cpu", "numerics.threads=auto"])
    world, cores = World.connect(torch.device("cpu"), 60.0), own_cores()
    data = os.environ.get("BATCHSCALE_DATA")
    dataset = load_data(recipe, Path(data) if data else None)
    for loops in (0, cores):
        with busy(loops):
            chosen, added, parts = choose(recipe, world, dataset)
            threads = {"one a core": cores, "one": 1, "auto": round(spread(chosen).median)}
            seconds: dict[str, list[float]] = {turn: [] for turn in threads}
            for round_ in range(ROUNDS):
                for turn in in_turn(list(threads), round_):
                    seconds[turn].append(block(parts, threads[turn], BLOCK_SECONDS))
            parts.close()
        load, counted, cost = os.getloadavg()[0], dict(Counter(chosen)), spread(added)
        print(f"{name} {' '.join(overrides)}: {loops} busy loops on {cores} cores, load average {load:.1f}")
        print(f"  auto chose (threads: times) {counted}; a choice adds {cost.median:.2f} s (iqr {cost.iqr:.2f})")
        for turn, found in seconds.items():
            step, ratio = spread(found), paired_ratio(seconds["one a core"], found)
            print(
                f"  {turn:<12}{1e3 * step.median:9.2f} ms a step (iqr {1e3 * step.iqr:.2f}); "
                f"one a core / this {ratio.median:6.3f} (iqr {ratio.iqr:.3f})",
                flush=True,
            )
    world.close()


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "fashion-mnist-cnn", sys.argv[2:])
