"""SCHED_BATCH for Gloo's threads under overlapped training: step time with it and as torch ships them, in turn.

torchrun --nproc-per-node=2 benchmarks/gloo_threads.py [IMAGES]

A perceptron of 2 million weights on random data, IMAGES (default 128) a process and step, summed by the backend in
buckets that go out while backward runs. Both policies in turn in the same processes; the median of paired ratios
with its interquartile range. A step's time is that of the slowest process.
"""

from __future__ import annotations

import itertools
import sys
import time

import torch
from torch import nn

from batchscale.aggregate import FastAggregator
from batchscale.bench.statistics import paired_ratio, spread
from batchscale.bench.turns import in_turn
from batchscale.comm import Choice, Reducer, World
from batchscale.comm.world.world import BATCH, OTHER, schedule_gloo_threads

ROUNDS, STEPS = 24, 12
PIXELS, WIDTH, HIDDEN, CLASSES = 784, 512, 6, 10
BUCKET_BYTES = 256 << 10  # every layer's megabyte is a bucket of its own
POLICIES = {"shipped": OTHER, "tuned": BATCH}


def perceptron() -> nn.Module:
    """784 -> 512 -> .. -> 512 -> 10."""
    widths = [PIXELS, *[WIDTH] * (HIDDEN + 1)]
    layers = [part for a, b in itertools.pairwise(widths) for part in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*layers, nn.Linear(WIDTH, CLASSES))


def main(images: int) -> None:
    """Train, time, print."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    world = World.connect(torch.device("cpu"), 60.0)
    if world.size < 2 or BATCH is None:
        sys.exit("needs Linux and two processes: torchrun --nproc-per-node=2 benchmarks/gloo_threads.py")
    reducer = Reducer(world)
    reducer.use(Choice(((0, "builtin"),)))
    model = perceptron()
    aggregator = FastAggregator(list(model.parameters()), reducer, bucket_bytes=BUCKET_BYTES)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, fused=True)
    inputs, labels = torch.randn(images, PIXELS), torch.randint(CLASSES, (images,))

    def block(policy: int | None) -> float:
        """Seconds of a step of the slowest process."""
        schedule_gloo_threads(policy)
        world.gather(None)
        start = time.perf_counter()
        for _ in range(STEPS):
            for _ in aggregator.attempts():
                loss = nn.functional.cross_entropy(model(inputs), labels) / world.size
                aggregator.last_pass()
                loss.backward()
                aggregator.add()
            optimizer.step()
        return max(world.gather((time.perf_counter() - start) / STEPS))

    seconds: dict[str, list[float]] = {name: [] for name in POLICIES}
    for policy in POLICIES.values():
        block(policy)
    for round_ in range(ROUNDS):
        for name in in_turn(list(POLICIES), round_):
            seconds[name].append(block(POLICIES[name]))
    if world.rank == 0:
        weights = sum(p.numel() for p in model.parameters())
        print(f"{weights:,} weights, {len(aggregator.buckets)} buckets, {world.size} processes of {images} images")
        for name, times in seconds.items():
            print(f"{name:<8} {1e3 * spread(times).median:8.2f} ms a step (iqr {1e3 * spread(times).iqr:.2f})")
        ratio = paired_ratio(seconds["shipped"], seconds["tuned"])
        print(f"shipped / tuned {ratio.median:.3f} (iqr {ratio.iqr:.3f}, {ROUNDS} rounds of {STEPS} steps)")
    aggregator.close()
    world.close()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 128)
