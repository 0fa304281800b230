"""Is the trial's choice of the micro-batch within 2 % of the best? Every size in turn with a run that chose for itself.

    python benchmarks/micro_batch_choice.py RECIPE [key=value ...] [--data DIR] [--processes 2] [--starts 8]

A contender a size (whole workers, 1, 2, 4, ... a pass, up to all that a process hosts), the smallest once more, and
``auto``, each W processes that train the trainer's own steps in turn with the others' for about a second a round. All
are started anew, in another order, so many times: where memory lies differs by start, and weighs some percent, as the
smallest size against itself shows. Printed of each: the median over the starts of its time as a share of auto's (each
of them a median over rounds), and its 90 % interval by order statistics. The choice is within 2 % of the best where no
interval lies below 0.98 as a whole. Exit code 1 where one does.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from batchscale.bench.assignment import Assignment
from batchscale.bench.contender import Contender
from batchscale.bench.rounds import Budget, Rounds
from batchscale.bench.statistics import median_interval, ratios_of, spread
from batchscale.recipe import load_recipe, recipe_from

MARGIN = 0.98


def sizes(workers: int) -> list[int]:
    """Workers of a pass that the trial may choose from."""
    powers = [1]
    while 2 * powers[-1] <= workers:
        powers.append(2 * powers[-1])
    return powers


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--starts", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=4, help="a start")
    options = parser.parse_args()
    recipe = load_recipe(options.recipe, [*options.overrides, "numerics.threads=1"])
    n, hosted = recipe.minibatch.per_worker, recipe.minibatch.workers // options.processes
    each = [n * workers for workers in sizes(hosted)]
    contenders = {"auto": "auto", **{str(size): size for size in each}, f"{n} again": n}
    shares: dict[str, list[float]] = {name: [] for name in contenders if name != "auto"}
    chosen = []
    for start in range(options.starts):
        order = random.Random(start).sample(sorted(contenders), len(contenders))
        seconds, choice = one_start(recipe.model_dump(), {name: contenders[name] for name in order}, options)
        chosen.append(choice)
        for name, values in shares.items():
            values.append(spread(ratios_of(seconds[name], seconds["auto"])).median)
        print(f"start {start + 1}: auto chose {choice}, {1e3 * spread(seconds['auto']).median:.1f} ms", *(
            f"  {name}: {values[-1]:.3f}" for name, values in shares.items()
        ), flush=True)  # fmt: skip
    far = False
    for name, values in shares.items():
        low, high = median_interval(values) or (0.0, float("inf"))
        far |= high < MARGIN
        print(f"{name:>10}  {spread(values).median:.3f} ({low:.3f} to {high:.3f}) of auto's time")
    return int(far)


def one_start(
    recipe: dict[str, Any], contenders: dict[str, str | int], options: argparse.Namespace
) -> tuple[dict[str, list[float]], int]:
    """Start all, let them take turns: seconds of a step in each round of each contender, and what auto chose."""
    rounds = Rounds(("auto",), [], lambda line: print(line, file=sys.stderr, flush=True))
    with tempfile.TemporaryDirectory() as scratch:
        try:
            for name, size in contenders.items():
                one = recipe_from(recipe, [f"numerics.micro_batch={size}"]).model_dump(mode="json")
                folder = str(options.data.resolve()) if options.data else None
                assignment = Assignment(one, folder, "", scratch, options.processes, 1)
                rounds.start(Contender(name, assignment, Path(scratch), lambda: None, kind="batchscale"))
            budget = Budget(1e9, block_seconds=1.0, min_rounds=options.rounds, max_rounds=options.rounds)
            rounds.measure(budget, time.monotonic())
        finally:
            rounds.close()
    seconds = {m.contender.name: [block.wall_seconds / block.steps for block in m.blocks] for m in rounds.running}
    auto = next(m for m in rounds.running if m.contender.name == "auto")
    return seconds, int(auto.contender.notes["micro_batch"])


if __name__ == "__main__":
    sys.exit(main())
