"""Real processes get the bits of the simulated world, and a fault names the rank and the collective in time."""

import re
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from support.reductions import (
    beside_a_thread,
    cases,
    collectives,
    everything,
    faulty,
    fingerprint,
    in_subgroups,
    on_gpu,
    values,
)
from support.worlds import in_processes, in_world, survivors

from batchscale.comm import World
from batchscale.comm.collectives import COLLECTIVES, make
from batchscale.comm.collectives.point_to_point import PointToPoint
from batchscale.comm.collectives.simulated import simulate


@pytest.mark.parametrize("size", [2, 3, 4, 5, 6, 7, 8, *(pytest.param(w, marks=pytest.mark.slow) for w in (9, 16))])
def test_processes_get_the_bits_of_the_simulated_world(size):
    expected = {}
    for collective in collectives(size):
        for kind, length in cases(size):
            buffers = values(size, kind, length)
            simulate(collective, buffers)
            expected[collective.name, kind, length] = fingerprint(buffers[0])
    for outcome in in_world(size, everything):
        assert outcome == expected
    assert {name for name, _, _ in expected} >= set(COLLECTIVES) - {"halving_doubling", "binary_blocks"}


def test_a_thread_may_reduce_while_another_gathers():
    assert in_world(3, beside_a_thread) == [(True, True)] * 3


def test_a_world_of_one_has_nothing_to_do():
    tensor = torch.ones(3)
    PointToPoint(World(), make("ring", 1)).all_reduce(tensor)
    assert tensor.tolist() == [1.0] * 3


def test_subgroups_sum_as_the_schedules_do():
    assert in_world(6, in_subgroups) == [[True] * 12] * 6


def test_subgroups_on_gpus():
    if torch.cuda.device_count() < 6:
        pytest.skip(f"needs 6 GPUs, one a rank; there are {torch.cuda.device_count()}")
    assert in_processes(6, on_gpu) == [[True] * 12] * 6


FAULTS = [
    (signal.SIGKILL, 2, "rank 2 died"),
    (signal.SIGKILL, 0, "rank 0 or the launcher.* died"),
    (signal.SIGSTOP, 2, "rank 2 did not answer within 15 s"),
    (signal.SIGSTOP, 0, "rank 0 or the launcher.* did not answer within 15 s"),
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
    with ThreadPoolExecutor(3) as pool:  # two of them wait
        for (kind, victim, message), errors in zip(FAULTS, pool.map(run, FAULTS), strict=True):
            dead = kind in (signal.SIGKILL, signal.SIGSTOP)
            assert set(errors) == set(range(4)) - ({victim} if dead else set())
            for rank, error in errors.items():
                if rank != victim:
                    assert re.search(rf"^all-reduce of gradients{by} \(rank {rank} of 4\): {message}", error), error
                else:
                    assert re.search(r"rank 0, 1, 3 (brought 1000 x float32, this|in all-reduce of grad)", error), error
