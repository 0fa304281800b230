"""Start and diagnosis of thousands of ranks on one store, in virtual time: seconds and store requests a rank.

python benchmarks/many_ranks.py [RANKS ...] [--requests-per-second RATE ...]

The ranks run the code of the package on a simulated store (`tests/support/simulated_store.py`), which answers RATE
requests a second one after another; no process, no socket, no clock. "start" is all that the package asks of the
store: all ranks agree on a name at once, rank 0 asks whether an earlier attempt began the run, and tells that it has
(torch's own set-up comes on top). "diagnosis" is all but one, which is silent, finding out which; each also as seconds
without the wait for it. A store of torch on the machine of development answered 13,000 a second to one Python client.
"""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path
from typing import Any, NamedTuple

RANKS, REQUESTS_PER_SECOND = (64, 256, 512, 1000, 4096), (20_000, 50_000, 100_000)
SPREAD_SECONDS = 0.05  # within which a failure has run through the world
START_SECONDS = 600.0


class Cost(NamedTuple):
    """Virtual seconds until the last rank has ended, requests a rank in the mean and at most, bytes of the busiest."""

    seconds: float
    requests: float
    most_requests: int
    most_bytes: int


def start(size: int, requests_per_second: float) -> Cost:
    """All ranks agree on a name, and rank 0 begins the run; raises where they do not."""
    from support.simulated_store import Simulation

    from batchscale.comm import World
    from batchscale.comm.world.rendezvous import agree_on_name

    simulation = Simulation(requests_per_second)

    def begin(store: Any, rank: int) -> str:
        name = agree_on_name(store, rank, size, START_SECONDS, simulation.clock)
        if rank == 0:
            world = World(rank, size)
            world._job = store
            if world.job_knows("opened"):
                raise RuntimeError("nobody has begun this run")
            world.tell_job("opened")
        return name

    names = simulation.run([lambda store, rank=rank: begin(store, rank) for rank in range(size)])
    if len(set(names)) != 1 or not isinstance(names[0], str):
        raise RuntimeError(f"no common name: {names[:4]}")
    return _cost(simulation)


def diagnosis(size: int, requests_per_second: float) -> Cost:
    """All ranks but one find out which it is; raises where they do not."""
    from support.simulated_store import Simulation

    from batchscale.comm.world.diagnosis import Doing, ask

    silent = size // 3
    simulation, doing = Simulation(requests_per_second), Doing("all-reduce of gradients", timed_out=True)
    ranks = [rank for rank in range(size) if rank != silent]
    draw = random.Random(0)
    verdicts = simulation.run(
        [lambda store, rank=rank: ask(store, rank, size, doing, simulation.clock) for rank in ranks],
        [draw.uniform(0, SPREAD_SECONDS) for _ in ranks],
    )
    if any(verdict is None or verdict.silent != [silent] for verdict in verdicts):
        raise RuntimeError(f"not only rank {silent} was named: {verdicts[:4]}")
    return _cost(simulation)


def _cost(simulation: Any) -> Cost:
    stores = [rank.store for rank in simulation.ranks]
    requests = [store.requests for store in stores]
    return Cost(simulation.ended_at, sum(requests) / len(requests), max(requests), max(store.bytes for store in stores))


def table(ranks: list[int], rates: list[int]) -> list[str]:
    """Lines of text."""
    from batchscale.comm.world.diagnosis import settle_seconds

    lines = [
        f"{'':10}{'ranks':>6} {'requests/s':>11} {'seconds':>8} {'requests a rank':>16} {'at most':>8} {'bytes':>9}"
    ]
    for name, measure in (("start", start), ("diagnosis", diagnosis)):
        for size in ranks:
            for rate in rates:
                cost = measure(size, rate)
                waited = f"  (waits {settle_seconds(size):.2f} s)" if name == "diagnosis" else ""
                lines.append(
                    f"{name:10}{size:>6,} {rate:>11,} {cost.seconds:>8.2f} {cost.requests:>16.2f} "
                    f"{cost.most_requests:>8} {cost.most_bytes:>9,}{waited}"
                )
    return lines


def main() -> None:
    """Simulate, print."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ranks", type=int, nargs="*", default=list(RANKS))
    parser.add_argument("--requests-per-second", type=int, nargs="+", default=list(REQUESTS_PER_SECOND))
    options = parser.parse_args()
    print("\n".join(table(options.ranks, options.requests_per_second)))


if __name__ == "__main__":
    main()
