"""Do predicted all-reduces come true over a link whose speed is set? Predicted beside measured, 64 KB to 100 MB.

    python benchmarks/shaped_links.py [--hosts 2 4] [--mbit 100] [--microseconds 0] [--seconds 2]

Hosts are network namespaces of this machine, joined by a bridge, with one process each; what leaves a host passes a
token bucket (tc tbf), and a delay where one is asked for (tc netem, where the kernel has it). Needs root.

The link's alpha and beta are measured by messages of 16 KB to 1 MB that two of the processes send each other at once,
as in a round. Nothing is fitted to an all-reduce: its seconds are those of `cost/step/all_reduce_time.py`, from its
declared rounds and bytes. Aim: 20 %. TCP's congestion control is reno, for bbr paces by an estimate of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

KB, MB = 1 << 10, 1 << 20
SIZES = (64 * KB, 256 * KB, MB, 4 * MB, 16 * MB, 100_000_000)
PING_SIZES = (16 * KB, 64 * KB, 256 * KB, MB)
_PINGS = 16  # in a row, so that what the idle bucket had saved counts little
ALGORITHMS = ("ring", "halving_doubling", "builtin")
AIM_PERCENT = 20
_BURST = "16kb"  # of the bucket
_TCP = ("net.ipv4.tcp_congestion_control=reno", "net.ipv4.tcp_slow_start_after_idle=0")
_MOST = 50  # repetitions


def ping(rank: int, size: int) -> float:
    """Seconds of one message of so many bytes from 0 to 1 and one from 1 to 0 at once, as in a round."""
    import torch
    import torch.distributed as dist

    sent, got = torch.zeros(size, dtype=torch.uint8), torch.zeros(size, dtype=torch.uint8)

    def exchanges() -> None:
        for _ in range(_PINGS):
            works = [dist.irecv(got, 1 - rank), dist.isend(sent, 1 - rank)]
            for work in works:
                work.wait()

    return timed(exchanges, lambda: dist.barrier(pair()), 1.0, fewest=9) / _PINGS


def pair() -> Any:
    """The group of ranks 0 and 1."""
    import torch.distributed as dist

    if not hasattr(pair, "group"):
        pair.group = dist.new_group([0, 1])
    return pair.group


def timed(run: Callable[[], None], meet: Callable[[], None], seconds: float, fewest: int = 2) -> float:
    """Median of several runs after a first one, each begun by all at once; as many as that took of the seconds."""
    import torch
    import torch.distributed as dist

    group = dist.group.WORLD if meet is dist.barrier else pair()
    meet()
    begin = time.perf_counter()
    run()
    count = torch.tensor([min(max(int(seconds / (time.perf_counter() - begin)), fewest), _MOST)])
    dist.broadcast(count, 0, group=group)
    times = []
    for _ in range(int(count)):
        meet()
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def measure(seconds: float) -> dict[str, Any]:
    """What one of the processes does: the ping-pong, then every all-reduce at every size."""
    import torch
    import torch.distributed as dist

    from batchscale.comm import World
    from batchscale.comm.collectives import make
    from batchscale.comm.collectives.point_to_point import PointToPoint

    torch.set_num_threads(1)
    world = World.connect(torch.device("cpu"), 120.0)
    pair()  # made by all
    answer: dict[str, Any] = {"ping": [], "all_reduce": []}
    answer["ping"] += pings(world.rank)
    for name in ALGORITHMS:
        alone = [[rank] for rank in range(world.size)]
        run = world.all_reduce if name == "builtin" else PointToPoint(world, make(name, world.size, alone)).all_reduce
        for size in SIZES:
            tensor = torch.zeros(size // 4)
            took = timed(lambda run=run, tensor=tensor: run(tensor), dist.barrier, seconds)
            answer["all_reduce"].append([name, size, took])
    answer["ping"] += pings(world.rank)  # before and after: what else runs on the machine changes meanwhile
    world.close()
    return answer


def pings(rank: int) -> list[tuple[int, float]]:
    """Bytes and seconds of each message; the other processes wait."""
    import torch.distributed as dist

    times = [(size, ping(rank, size)) for size in PING_SIZES] if rank < 2 else []
    dist.barrier()
    return times


def shape(namespace: str, mbit: float, microseconds: float) -> None:
    """Slow down what leaves a host."""
    inside = ("ip", "netns", "exec", namespace, "sysctl", "-q", "-w")
    subprocess.run([*inside, *_TCP], check=True)
    device = ("tc", "-n", namespace, "qdisc", "add", "dev", "eth0")
    bucket = ("tbf", "rate", f"{mbit}mbit", "burst", _BURST, "latency", "2s")
    subprocess.run([*device, "root", "handle", "1:", *bucket], check=True)
    if microseconds:
        delayed = [*device, "parent", "1:1", "handle", "10:", "netem", "delay", f"{microseconds}us", "limit", "100000"]
        if subprocess.run(delayed).returncode:
            sys.exit("--microseconds: this kernel has no netem; leave it out")


def run_hosts(count: int, options: argparse.Namespace) -> dict[str, Any]:
    """Measure over so many hosts; what rank 0 says."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    from support.hosts import hosts

    with hosts(count, networks=True) as machines:
        running = []
        for rank, host in enumerate(machines):
            shape(host.prefix[3], options.mbit, options.microseconds)
            environment = os.environ | {
                "RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1",
                "MASTER_ADDR": machines[0].address, "MASTER_PORT": "29511", "GLOO_SOCKET_IFNAME": host.interface,
                "OMP_NUM_THREADS": "1",
            }  # fmt: skip
            command = [*host.prefix, sys.executable, sys.argv[0], "--seconds", str(options.seconds), "--measure"]
            running.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
        answers = [process.communicate()[0] for process in running]
    if any(process.returncode for process in running):
        sys.exit("a process failed; its error stands above")
    document: dict[str, Any] = json.loads(answers[0].splitlines()[-1])
    return document


def compared(count: int, document: dict[str, Any]) -> list[float]:
    """Print the link and every all-reduce beside its prediction; the errors, in percent."""
    from batchscale.bench.allreduce.fit import fit
    from batchscale.cost.clusters.cluster import ClusterFile
    from batchscale.cost.step.all_reduce_time import all_reduce_seconds

    sizes, seconds_of_sizes = zip(*document["ping"], strict=True)
    link = fit([1] * len(sizes), sizes, seconds_of_sizes)
    alpha, beta = link.alpha_seconds, link.beta_seconds_per_byte
    source = "a ping-pong between two of the processes"
    cluster = ClusterFile.model_validate({
        "device": "a process", "devices_per_host": {"value": 1, "source": source},
        "between_microseconds": {"value": alpha * 1e6, "source": source},
        "between_gbit_per_second": {"value": 8e-9 / beta, "source": source},
    })  # fmt: skip
    print(f"{count} hosts: by ping-pong alpha {alpha * 1e6:.0f} us, beta of {8e-6 / beta:.1f} Mbit/s, which say each "
          f"message to within {100 * link.largest_relative_residual:.0f} %")  # fmt: skip
    print(f"{'all-reduce':<18} {'bytes':>12} {'predicted':>12} {'measured':>12} {'error':>8}")
    errors = []
    for name, size, seconds in document["all_reduce"]:
        predicted = float(all_reduce_seconds(name, cluster, count, size)[0])
        errors.append(100 * (predicted / seconds - 1))
        verdict = "" if abs(errors[-1]) <= AIM_PERCENT else f"  beyond {AIM_PERCENT} %"
        print(
            f"{name:<18} {size:>12,} {1e3 * predicted:>9.2f} ms {1e3 * seconds:>9.2f} ms {errors[-1]:>+6.1f} %{verdict}"
        )
    return errors


def main(words: Sequence[str] | None = None) -> None:
    """Shape, measure, predict, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--mbit", type=float, default=100, help="of each host's link, each way")
    parser.add_argument("--microseconds", type=float, default=0, help="of delay, each way; needs netem")
    parser.add_argument("--seconds", type=float, default=2, help="of each all-reduce at each size, about")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    if options.measure:
        print(json.dumps(measure(options.seconds)))
        return
    errors = [error for count in options.hosts for error in compared(count, run_hosts(count, options))]
    within = sum(abs(error) <= AIM_PERCENT for error in errors)
    median = statistics.median(map(abs, errors))
    print(f"{within} of {len(errors)} within {AIM_PERCENT} %, median {median:.1f} %; link of {options.mbit:g} Mbit/s "
          f"and {options.microseconds:g} us, load {os.getloadavg()[0]:.1f}")  # fmt: skip


if __name__ == "__main__":
    main()
