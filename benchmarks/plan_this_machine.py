"""Does a plan of this machine come true? Step times at W = 2 and 4, all-reduces from 64 KB to 100 MB.

    BATCHSCALE_DATA=DIR python benchmarks/plan_this_machine.py [RECIPE key=value ...] [--processes 2 4]
        [--only steps|all-reduces] [--seconds 60] [--rounds 5]

First `bench allreduce` and `bench step --processes CORES` calibrate, in a cache folder of their own; then a step and
every all-reduce are predicted, and then all are measured again. Aims: 15 % for a step, 20 % for an all-reduce. The
machine should be quiet: what others run on it between the two measurements counts as an error here.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from typing import Any

STEP_PERCENT, ALL_REDUCE_PERCENT = 15, 20
SIZES = (64 << 10, 100 << 20)
ALGORITHMS = ("shared_memory", "builtin")


def bench(*words: str) -> dict[str, Any]:
    """The document of a benchmark."""
    command = [sys.executable, "-m", "batchscale", "bench", *words, "--json"]
    answer: dict[str, Any] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return answer


def compared(name: str, predicted: float, measured: float, most_percent: float) -> bool:
    """Print a row; whether it is within the aim."""
    error = 100 * (predicted / measured - 1)
    verdict = "within" if abs(error) <= most_percent else "beyond"
    print(
        f"{name:<40} {1e3 * predicted:>10.3f} {1e3 * measured:>10.3f} ms {error:>+7.1f} %  {verdict} {most_percent} %"
    )
    return abs(error) <= most_percent


def check_all_reduces(counts: list[int], seconds: str) -> list[bool]:
    """Measure again, and compare with the file."""
    from batchscale.cost.clusters.cluster import read_cluster
    from batchscale.cost.step.all_reduce_time import all_reduce_seconds

    machine, results = read_cluster("this-machine"), []
    for processes in counts:
        again = bench("allreduce", "--processes", str(processes), "--seconds", seconds, "--no-store")
        for row in again["rows"]:
            if row["algorithm"] in ALGORITHMS and SIZES[0] <= row["bytes"] <= SIZES[1]:
                predicted = all_reduce_seconds(row["algorithm"], machine, processes, row["bytes"])[0]
                name = f"{row['algorithm']}, W = {processes}, {row['bytes'] >> 10} KB"
                results.append(compared(name, float(predicted), row["seconds"], ALL_REDUCE_PERCENT))
    return results


def check_steps(words: list[str], counts: list[int], rounds: str, cores: int) -> list[bool]:
    """Calibrate with as many processes as cores, predict, measure again, compare."""
    bench("step", *words, "--processes", str(cores), "--rounds", rounds)
    from batchscale.cost.clusters.cluster import read_cluster
    from batchscale.cost.step.net_table import shipped_net
    from batchscale.cost.step.step_time import step_time

    machine, results = read_cluster("this-machine"), []
    for processes in counts:
        document = bench("step", *words, "--processes", str(processes), "--rounds", rounds)
        images = document["minibatch"]["images"]
        times = step_time(shipped_net(machine.rates[0].net), machine, processes, images // processes, "shared_memory")
        speed = next(row["images_per_second"] for row in document["rows"] if row["name"] == "batchscale")
        results.append(compared(f"a step, W = {processes}", float(times.total[0]), images / speed, STEP_PERCENT))
    return results


def main() -> None:
    """Calibrate, predict, measure, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", nargs="*", default=[], help="of the step (default: that of bench step)")
    parser.add_argument("--processes", type=int, nargs="+", default=[2, 4], help="counts to predict")
    parser.add_argument("--only", choices=("steps", "all-reduces"), help="(default: both)")
    parser.add_argument("--seconds", default="60", help="of each bench allreduce")
    parser.add_argument("--rounds", default="5", help="of each bench step")
    options = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as cache:
        os.environ["XDG_CACHE_HOME"] = cache
        for processes in options.processes:
            bench("allreduce", "--processes", str(processes), "--seconds", options.seconds)
        print(f"{'':<40} {'predicted':>10} {'measured':>10}")
        results = []
        if options.only != "all-reduces":
            results += check_steps(options.recipe, options.processes, options.rounds, cores)
        if options.only != "steps":
            results += check_all_reduces(options.processes, options.seconds)
    print(f"{sum(results)} of {len(results)} within their aims; load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
