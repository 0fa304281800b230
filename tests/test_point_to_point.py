"""Real processes get the bits of the simulated world, and a fault names the rank and the collective in time."""

import hashlib
import os
import re
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from test_collectives import hosts_of
from worlds import CPU, in_processes, in_world, survivors

from batchscale.comm import World, diagnosis
from batchscale.comm.collectives import COLLECTIVES, make
from batchscale.comm.point_to_point import PointToPoint
from batchscale.comm.simulated import simulate
from batchscale.comm.subgroups import SubgroupHierarchical, SubgroupTorus
from batchscale.errors import ProcessError, UsageError

TYPES = ["float16", "float32", "float64", "bfloat16", "int64"]


def collectives(size):
    """Every algorithm that is made for W ranks; those with hosts on two uneven ones."""
    found = []
    for name in COLLECTIVES:
        try:
            found.append(make(name, size, hosts_of("uneven", size)))
        except UsageError:
            continue
    return found


def cases(size):
    """Types and lengths: all types once, one type with lengths below W and, where that is quick, many."""
    lengths = (0, 1, size - 1, 4096, 10007) if size < 6 else (size - 1,)
    return [*((kind, 6 * size + 5) for kind in TYPES), *(("float32", length) for length in lengths)]


def values(size, kind, length):
    random = torch.Generator().manual_seed(length)
    return (torch.randn(size, length, generator=random, dtype=torch.float64) * 9).to(getattr(torch, kind))


def fingerprint(tensor):
    return hashlib.sha256(tensor.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()


def everything(world):
    """Fingerprints of this rank's result for every algorithm, type and length."""
    made = {}
    for collective in collectives(world.size):
        between = PointToPoint(world, collective)
        for kind, length in cases(world.size):
            tensor = values(world.size, kind, length)[world.rank].clone()
            between.all_reduce(tensor)
            made[collective.name, kind, length] = fingerprint(tensor)
    return made


@pytest.mark.parametrize("size", [2, 3, 4, 5, 6, 7, 8, 9, 16])
def test_processes_get_the_bits_of_the_simulated_world(size):
    expected = {}
    for collective in collectives(size):
        for kind, length in cases(size):
            buffers = values(size, kind, length)
            simulate(collective, buffers)
            expected[collective.name, kind, length] = fingerprint(buffers[0])
    for made in in_world(size, everything):
        assert made == expected
    assert {name for name, _, _ in expected} >= set(COLLECTIVES) - {"halving_doubling", "binary_blocks"}


def beside_a_thread(world):
    between = PointToPoint(world, make("ring", world.size))
    sums = [torch.full((1000 + i,), float(world.rank)) for i in range(20)]

    def reduce_all():
        for tensor in sums:
            between.all_reduce(tensor)

    thread = threading.Thread(target=reduce_all)
    thread.start()
    said = [world.gather(world.rank + i) for i in range(20)]
    thread.join()
    return all((tensor == 3).all() for tensor in sums), said == [[i, i + 1, i + 2] for i in range(20)]


def test_a_thread_may_reduce_while_another_gathers():
    assert in_world(3, beside_a_thread) == [(True, True)] * 3


def test_a_world_of_one_has_nothing_to_do():
    tensor = torch.ones(3)
    PointToPoint(World(), make("ring", 1)).all_reduce(tensor)
    assert tensor.tolist() == [1.0] * 3


def in_subgroups(world):
    """Whether torus and hierarchical sum right in sub-groups, in even, padded and uneven cases."""
    hosts = hosts_of("uneven", world.size)
    made = [
        SubgroupTorus(world, make("torus", world.size, torus=(3, 2))),
        SubgroupTorus(world, make("torus", world.size, [[5, 0, 2], [1, 4, 3]])),
        SubgroupHierarchical(world, make("hierarchical", world.size, hosts)),
    ]
    right = []
    for subgroups in made:
        for kind, length in [("float32", 12), ("float32", 13), ("int64", 2), ("float64", 0)]:
            tensors = torch.arange(world.size * length).reshape(world.size, length).to(getattr(torch, kind))
            mine = tensors[world.rank].to(world.device, copy=True)
            subgroups.all_reduce(mine)
            right.append(bool((mine.cpu() == tensors.sum(dim=0)).all()))
    return right


def test_subgroups_sum_as_the_schedules_do():
    assert in_world(6, in_subgroups) == [[True] * 12] * 6


def on_gpu(rank):
    torch.cuda.set_device(rank)
    world = World.connect(torch.device("cuda", rank), 60.0)
    made = in_subgroups(world)
    world.close()
    return made


def test_subgroups_on_gpus():
    if torch.cuda.device_count() < 6:
        pytest.skip(f"needs 6 GPUs, one a rank; there are {torch.cuda.device_count()}")
    assert in_processes(6, on_gpu) == [[True] * 12] * 6


TIMEOUT_SECONDS, SETTLE_SECONDS, SLACK_SECONDS = 2.0, 1.0, 5.0


def faulty(rank, name, fault, victim):
    """All-reduce well once, then with a fault of the victim's: (seconds, error) of a rank that survives."""
    diagnosis.SETTLE_SECONDS = SETTLE_SECONDS
    world = World.connect(CPU, TIMEOUT_SECONDS)
    between = world if name == "builtin" else PointToPoint(world, make(name, world.size))
    between.all_reduce(torch.ones(999), "all-reduce of gradients")
    tensor, what = torch.ones(1000), "all-reduce of gradients"
    world.gather("all are here")
    if rank == victim:
        if fault in (signal.SIGKILL, signal.SIGSTOP):
            os.kill(os.getpid(), fault)
        tensor = {"longer": torch.ones(1001), "type": torch.ones(1000, dtype=torch.int32)}.get(fault, tensor)
        what = "all-reduce of counts" if fault == "other" else what
    began = time.monotonic()
    try:
        between.all_reduce(tensor, what)
    except ProcessError as error:
        return time.monotonic() - began, str(error)
    return None


FAULTS = [
    (signal.SIGKILL, 2, "rank 2 died"),
    (signal.SIGKILL, 0, "rank 0 or the launcher.* died"),
    (signal.SIGSTOP, 2, "rank 2 did not answer within 2 s"),
    (signal.SIGSTOP, 0, "rank 0 or the launcher.* did not answer within 2 s"),
    ("longer", 2, "rank 2 brought 1001 x float32, this rank 1000 x float32$"),
    ("type", 2, "rank 2 brought 1000 x int32, this rank 1000 x float32$"),
    ("other", 2, "rank 2 in all-reduce of counts.*, this rank in all-reduce of gradients"),
]


@pytest.mark.parametrize("name", ["ring", "builtin"])
def test_a_fault_names_the_rank_and_the_collective_in_time(name):
    def run(fault):
        kind, victim, _ = fault
        return survivors(4, kind in (signal.SIGKILL, signal.SIGSTOP), faulty, name, kind, victim)

    by = "" if name == "builtin" else " by ring"
    with ThreadPoolExecutor(len(FAULTS)) as pool:  # all at once: they mostly wait
        for (kind, victim, said), found in zip(FAULTS, pool.map(run, FAULTS), strict=True):
            dead = kind in (signal.SIGKILL, signal.SIGSTOP)
            assert set(found) == set(range(4)) - ({victim} if dead else set())
            for rank, (seconds, error) in found.items():
                assert seconds < TIMEOUT_SECONDS + SETTLE_SECONDS + SLACK_SECONDS
                if rank != victim:
                    assert re.search(rf"^all-reduce of gradients{by} \(rank {rank} of 4\): {said}", error), error
                else:
                    assert re.search(r"rank 0, 1, 3 (brought 1000 x float32, this|in all-reduce of grad)", error), error
