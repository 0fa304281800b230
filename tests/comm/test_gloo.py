"""Gloo's connections: few in a large world and right in any, and a hang-up that everyone hears."""

import gc
import os
import signal
import threading
from collections import Counter
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
from support.reductions import everything
from support.worlds import CPU, in_world, survivors

from batchscale.comm import World
from batchscale.comm.world import gloo
from batchscale.comm.world.gloo import mesh_for, neighbours
from batchscale.errors import ProcessError

LAZY = "TORCH_GLOO_LAZY_INIT"


def sockets():
    """Open sockets of this process, without those of earlier tests that nobody uses any more."""
    gc.collect()
    count = 0
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            count += os.readlink(f"/proc/self/fd/{descriptor}").startswith("socket:")
        except FileNotFoundError:  # that of the listing itself
            continue
    return count


def exchanges(group, rank, size):
    """The exchanges that a world makes: a gather, a meeting with tags, a sum, a broadcast, a barrier."""
    gathered = [torch.zeros(1) for _ in range(size)]
    group.allgather([gathered], [torch.tensor([float(rank)])]).wait()
    behind = []
    distance = 1
    while distance < size:
        met = torch.zeros(1)
        received = group.recv([met], (rank - distance) % size, 77)
        sent = group.send([torch.tensor([float(rank)])], (rank + distance) % size, 77)
        received.wait()
        sent.wait()
        behind.append((rank - int(met)) % size)
        distance *= 2
    total = torch.tensor([float(rank)])
    group.allreduce([total]).wait()
    first = torch.tensor([float(rank) + 5])
    options = dist.BroadcastOptions()
    options.rootRank = 0
    group.broadcast([first], options).wait()
    group.barrier().wait()
    return [int(x) for x in gathered], behind, int(total), int(first)


@pytest.mark.parametrize("size", [7, 24])
def test_a_lazy_mesh_sums_alike_over_a_few_connections(monkeypatch, size):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    monkeypatch.delenv(LAZY, raising=False)
    distances = [1 << i for i in range((size - 1).bit_length())]
    expected = [(list(range(size)), distances, sum(range(size)), 5)] * size
    opened = {}
    for mesh, largest in (("full", size), ("lazy", size - 1)):
        monkeypatch.setattr(gloo, "LARGEST_FULL_MESH", largest)
        before, store = sockets(), dist.HashStore()
        groups, outcomes = [None] * size, [None] * size

        def enter(rank, store=store, groups=groups, outcomes=outcomes):
            groups[rank] = dist.ProcessGroupGloo(store, rank, size, timedelta(seconds=60))
            outcomes[rank] = exchanges(groups[rank], rank, size)

        with mesh_for(size):
            threads = [threading.Thread(target=enter, args=(rank,)) for rank in range(size)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert outcomes == expected
        opened[mesh] = sockets() - before
        groups.clear()
    listeners = size
    assert opened["full"] == size * (size - 1) + listeners
    assert opened["lazy"] <= size * 2 * len(distances) + listeners
    assert opened["lazy"] < opened["full"] or size < 8


@pytest.mark.parametrize("chosen", [None, "0", "1"])
@pytest.mark.parametrize("size", [128, 129])
def test_who_has_chosen_a_mesh_keeps_it_and_nothing_is_left_set(monkeypatch, size, chosen):
    monkeypatch.delenv(LAZY, raising=False)
    if chosen is not None:
        monkeypatch.setenv(LAZY, chosen)
    monkeypatch.setattr(gloo, "_allow_descriptors", lambda size: None)
    seen = []

    def make_groups():
        with mesh_for(size):
            seen.append(os.environ.get(LAZY))
            raise RuntimeError("not everyone came")

    with pytest.raises(RuntimeError, match="not everyone came"):
        make_groups()
    assert seen == [chosen or ("1" if size > 128 else None)]
    assert os.environ.get(LAZY) == chosen


@pytest.mark.parametrize(
    ("size", "soft", "hard", "raised"),
    [
        (128, 1024, 4096, []),
        (129, 1024, 4096, [(1540, 4096)]),
        (1000, 1024, 4096, [(4096, 4096)]),
        (1000, 1024, -1, [(5024, -1)]),  # no limit
        (1000, 6000, 1 << 20, []),
        (1000, -1, -1, []),
    ],
)
def test_a_large_world_may_open_the_descriptors_that_it_needs(monkeypatch, size, soft, hard, raised):
    resource = pytest.importorskip("resource")
    limits = []
    monkeypatch.setattr(resource, "RLIM_INFINITY", -1)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _, pair: limits.append(pair))
    with mesh_for(size):
        pass
    assert limits == raised

    def refuse(*_):
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "setrlimit", refuse)
    with mesh_for(129):
        pass


@pytest.mark.parametrize("size", [2, 3, 4, 7, 8, 1000])
def test_neighbours_are_those_that_meet(size):
    for rank in {0, 1, size - 1}:
        peers = neighbours(rank, size)
        assert Counter(peers).most_common(1)[0][1] == 1
        meets = {(rank + sign * (1 << i)) % size for i in range((size - 1).bit_length()) for sign in (1, -1)}
        assert set(peers) == meets - {rank}
        assert set(peers[:2]) == {(rank + 1) % size, (rank - 1) % size}


def dies_while_others_wait(rank, dead, mesh):
    """What a rank is told when others are killed while all are in an all-reduce."""
    if mesh == "lazy":
        os.environ[LAZY] = "1"
    world = World.connect(CPU, 60.0)
    world.all_reduce(torch.ones(10), "all-reduce of gradients")
    world.gather("all are here")
    if rank in dead:
        signal.raise_signal(signal.SIGKILL)
    with pytest.raises(ProcessError) as told:
        world.all_reduce(torch.ones(10), "all-reduce of gradients")
    return str(told.value)


@pytest.mark.parametrize("mesh", ["full", "lazy"])
@pytest.mark.parametrize(("size", "dead"), [(5, [3]), (8, [2, 4])])
def test_all_hear_at_once_that_some_have_died_and_name_them(size, dead, mesh):
    """Whoever waited until its own time was up would say that they did not answer within 60 s."""
    errors = survivors(size, len(dead), dies_while_others_wait, dead, mesh)
    assert set(errors) == set(range(size)) - set(dead)
    names = ", ".join(map(str, dead))
    for rank, error in errors.items():
        assert error.startswith(f"all-reduce of gradients (rank {rank} of {size}): rank {names} died ("), error


def test_every_algorithm_and_type_in_a_lazy_mesh(monkeypatch):
    full = in_world(3, everything)
    monkeypatch.setenv(LAZY, "1")
    assert in_world(3, everything) == full
