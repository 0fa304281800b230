"""What tests of reductions run in other processes: a module that they import in no time."""

from __future__ import annotations

import hashlib
import itertools
import os
import signal
import threading

import pytest
import torch

from batchscale.comm import World
from batchscale.comm.collectives import COLLECTIVES, make
from batchscale.comm.collectives.point_to_point import PointToPoint
from batchscale.comm.collectives.subgroups import SubgroupHierarchical, SubgroupTorus
from batchscale.comm.world import diagnosis
from batchscale.errors import ProcessError, UsageError
from support.worlds import CPU


def hosts_of(kind, size):
    """Hosts of W ranks whose numbers are dealt in turn, so that places and ranks differ."""
    dealt = [rank for first in range(3) for rank in range(first, size, 3)]
    if kind == "even":
        each = 2 if size % 2 == 0 else 1
        return [dealt[i : i + each] for i in range(0, size, each)]
    if kind == "uneven":
        cuts = [0, max(1, size // 3), size] if size > 1 else [0, 1]
        return [dealt[a:b] for a, b in itertools.pairwise(cuts)]
    return [dealt]


TYPES = ["float16", "float32", "float64", "bfloat16", "int64"]


def collectives(size):
    """Every algorithm that is made for W ranks; those with hosts on two uneven ones."""
    algorithms = []
    for name in COLLECTIVES:
        try:
            algorithms.append(make(name, size, hosts_of("uneven", size)))
        except UsageError:
            continue
    return algorithms


def cases(size):
    """Types and lengths: all types once, one type with lengths below W, even and uneven."""
    return [*((kind, 6 * size + 5) for kind in TYPES), *(("float32", n) for n in (0, 1, size - 1, 4096, 10007))]


def values(size, kind, length):
    random = torch.Generator().manual_seed(length)
    return (torch.randn(size, length, generator=random, dtype=torch.float64) * 9).to(getattr(torch, kind))


def fingerprint(tensor):
    return hashlib.sha256(tensor.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()


def everything(world):
    """Fingerprints of this rank's result for every algorithm, type and length."""
    fingerprints = {}
    for collective in collectives(world.size):
        between = PointToPoint(world, collective)
        for kind, length in cases(world.size):
            tensor = values(world.size, kind, length)[world.rank].clone()
            between.all_reduce(tensor)
            fingerprints[collective.name, kind, length] = fingerprint(tensor)
    return fingerprints


def beside_a_thread(world):
    between = PointToPoint(world, make("ring", world.size))
    sums = [torch.full((1000 + i,), float(world.rank)) for i in range(20)]

    def reduce_all():
        for tensor in sums:
            between.all_reduce(tensor)

    thread = threading.Thread(target=reduce_all)
    thread.start()
    answers = [world.gather(world.rank + i) for i in range(20)]
    thread.join()
    return all((tensor == 3).all() for tensor in sums), answers == [[i, i + 1, i + 2] for i in range(20)]


def in_subgroups(world):
    """Whether torus and hierarchical sum right in sub-groups, in even, padded and uneven cases."""
    hosts = hosts_of("uneven", world.size)
    reducers = [
        SubgroupTorus(world, make("torus", world.size, torus=(3, 2))),
        SubgroupTorus(world, make("torus", world.size, [[5, 0, 2], [1, 4, 3]])),
        SubgroupHierarchical(world, make("hierarchical", world.size, hosts)),
    ]
    right = []
    for subgroups in reducers:
        for kind, length in [("float32", 12), ("float32", 13), ("int64", 2), ("float64", 0)]:
            tensors = torch.arange(world.size * length).reshape(world.size, length).to(getattr(torch, kind))
            tensor = tensors[world.rank].to(world.device, copy=True)
            subgroups.all_reduce(tensor)
            right.append(bool((tensor.cpu() == tensors.sum(dim=0)).all()))
    return right


def on_gpu(rank):
    torch.cuda.set_device(rank)
    world = World.connect(torch.device("cuda", rank), 60.0)
    right = in_subgroups(world)
    world.close()
    return right


TIMEOUT_SECONDS, SETTLE_SECONDS = 15.0, 6.0  # so long that a busy machine has started and heard every process by then


def faulty(rank, name, fault, victim):
    """All-reduce well once, then with a fault of the victim's: what a rank that survives is told."""
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
    with pytest.raises(ProcessError) as told:
        between.all_reduce(tensor, what)
    return str(told.value)
