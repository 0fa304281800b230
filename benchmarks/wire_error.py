"""Whether gradients sent in 16 bits cost test error: digits-cnn on 2 processes, bf16 and fp16 against fp32, by seeds.

python benchmarks/wire_error.py [SEEDS]

Stated before it was run: what is compared is the median test error of the last five evaluations after equal epochs,
by pairs of one seed; a way is as good as fp32 where the 90 % interval of its mean difference (Student's t) lies within
0.5 percentage points. The algorithm is the ring: a rank's partial sum is rounded once, and the sum once.
"""

from __future__ import annotations

import os
import socket
import statistics
import sys

from scipy.stats import t as student

import batchscale

WIRES = ("fp32", "bf16", "fp16")
MARGIN, LEVEL = 0.5, 0.9
FIXED = (
    "minibatch.workers=2", "minibatch.per_worker=16", "numerics.micro_batch=16", "numerics.threads=1",
    "epochs=10", "learning_rate.decay={kind: cosine}", "execution.aggregation.algorithm=ring",
)  # fmt: skip


def errors(seeds: int) -> dict[str, list[float]]:
    """Of every wire, by seed; both processes call this."""
    rows: dict[str, list[float]] = {wire: [] for wire in WIRES}
    for seed in range(1, seeds + 1):
        for wire in WIRES:
            overrides = [*FIXED, f"numerics.wire={wire}", f"seed={seed}"]
            result = batchscale.train("digits-cnn", overrides, quiet=True)
            rows[wire].append(result.test_error_median_last_5)
            if os.environ["RANK"] == "0":
                print(f"seed {seed}, {wire}: {rows[wire][-1]:.3f} %, loss {result.train_loss:.5f}", flush=True)
    return rows


def main(seeds: int) -> None:
    """Two processes on this machine, forked: torch is imported once."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2")
    other = os.fork()
    rank = "1" if other == 0 else "0"
    os.environ.update(RANK=rank, LOCAL_RANK=rank, GLOO_SOCKET_IFNAME="lo")
    rows = errors(seeds)
    if other == 0:
        os._exit(0)
    os.waitpid(other, 0)
    for wire in WIRES[1:]:
        differences = [a - b for a, b in zip(rows[wire], rows["fp32"], strict=True)]
        mean = statistics.mean(differences)
        half = student.ppf((1 + LEVEL) / 2, seeds - 1) * statistics.stdev(differences) / seeds**0.5
        verdict = "as good" if abs(mean) + half < MARGIN else "not resolved"
        print(
            f"{wire} - fp32: {mean:+.3f} ({mean - half:+.3f} to {mean + half:+.3f}) points, {verdict} within {MARGIN}"
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
