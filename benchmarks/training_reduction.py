"""What shared memory gives to training: a training step with it and with the backend (as tuned here), in turn.

python benchmarks/training_reduction.py [PROCESSES [key=value ...]]

fashion-mnist-cnn (BATCHSCALE_DATA names its data) on PROCESSES (default 2) processes; both sets of processes are
alive at the same time and train in turn, with the same micro-batch. The median of paired ratios of step time with
its interquartile range, and what a step waits for its sums once its own gradient is there.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
from pathlib import Path

from batchscale.bench.assignment import Assignment
from batchscale.bench.contender import Block, Contender
from batchscale.bench.statistics import paired_ratio, spread
from batchscale.bench.turns import in_turn, stop_check
from batchscale.launch.signals import StopSignals
from batchscale.recipe import load_recipe
from batchscale.system.cores import available_cores

RECIPE, ALGORITHMS = "fashion-mnist-cnn", ("shared_memory", "builtin")
ROUNDS, BLOCK_SECONDS, WARM_STEPS = 15, 2.0, 5


def assignment(algorithm: str, processes: int, overrides: list[str]) -> Assignment:
    """The recipe with this all-reduce."""
    threads = max(available_cores() // processes, 1)
    recipe = load_recipe(RECIPE, [*overrides, f"execution.aggregation.algorithm={algorithm}", "execution.device=cpu"])
    return Assignment(recipe.model_dump(mode="json"), os.environ.get("BATCHSCALE_DATA"), "", "", processes, threads)


def aggregation_seconds(block: Block) -> float:
    """Of a step, the mean over processes."""
    return statistics.mean(answer["phase_seconds"]["aggregation"] for answer in block.answers) / block.steps


def measure(running: dict[str, Contender], steps: int) -> dict[str, list[Block]]:
    """Rounds of one block each."""
    blocks: dict[str, list[Block]] = {name: [] for name in running}
    for round_ in range(ROUNDS):
        for name in in_turn(list(running), round_):
            blocks[name].append(running[name].block(steps, 2 * BLOCK_SECONDS))
    return blocks


def main(processes: int, overrides: list[str]) -> None:
    """Start both, time, print."""
    running: dict[str, Contender] = {}
    with StopSignals() as signals, tempfile.TemporaryDirectory() as scratch:
        try:
            micro_batch: list[str] = []
            for name in ALGORITHMS:
                job = assignment(name, processes, [*overrides, *micro_batch])
                running[name] = Contender("batchscale", job, Path(scratch), stop_check(signals))
                running[name].start()
                running[name].ready()
                micro_batch = [f"numerics.micro_batch={running[ALGORITHMS[0]].notes['micro_batch']}"]
            slowest = max(contender.block(WARM_STEPS).wall_seconds / WARM_STEPS for contender in running.values())
            blocks = measure(running, max(round(BLOCK_SECONDS / slowest), 1))
        finally:
            for contender in running.values():
                contender.close()
    seconds = {name: [b.wall_seconds / b.steps for b in found] for name, found in blocks.items()}
    print(f"{RECIPE} {' '.join([*overrides, *micro_batch])}, {processes} processes, {ROUNDS} rounds")
    for name, found in blocks.items():
        waits = spread([aggregation_seconds(b) for b in found])
        print(
            f"{name:<14}{1e3 * spread(seconds[name]).median:8.2f} ms a step, of it {1e3 * waits.median:6.2f} ms "
            f"(iqr {1e3 * waits.iqr:.2f}) waiting for sums; {found[0].steps} steps in a turn"
        )
    ratio = paired_ratio(seconds["builtin"], seconds["shared_memory"])
    print(f"step time, builtin / shared_memory: {ratio.median:.3f} (iqr {ratio.iqr:.3f})")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2, sys.argv[2:])
