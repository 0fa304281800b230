"""batchscale's all-reduces in plain DistributedDataParallel: DDP's own gradients, to rounding."""

import os
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from worlds import in_processes

import batchscale
from batchscale.comm import ALGORITHMS, Reducer, World
from batchscale.errors import UsageError


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(30, 700), nn.Tanh(), nn.Linear(700, 600), nn.Tanh(), nn.Linear(600, 5))


def gradients(model, rank):
    generator = torch.Generator().manual_seed(rank)
    for _ in range(2):  # DDP cuts its buckets anew after the first backward pass
        model.zero_grad()
        model(torch.randn(8, 30, generator=generator)).square().sum().backward()
    return torch.cat([p.grad.flatten() for p in model.parameters()])


def every_algorithm(rank):
    dist.init_process_group("gloo", timeout=timedelta(seconds=60))
    own = gradients(DistributedDataParallel(net(), bucket_cap_mb=0.5), rank)
    names = ["auto", *Reducer(World.of_process_group(torch.device("cpu"), 60.0)).available()]
    found = {}
    for name in names:
        model = DistributedDataParallel(net(), bucket_cap_mb=0.5)
        choice = batchscale.ddp_hook(model, name)
        ours = gradients(model, rank)
        found[name] = (float((ours - own).norm() / own.norm()), choice.limits[-1][1], ours.sum().item())
    with pytest.raises(UsageError, match="unknown"):
        batchscale.ddp_hook(DistributedDataParallel(net()), "rings")
    dist.barrier()
    dist.destroy_process_group()
    return found


@pytest.mark.parametrize("size", [2, 3])
def test_gradients_are_those_of_ddp(size):
    results = in_processes(size, every_algorithm)
    for found in results:
        assert {"builtin", "shared_memory", "ring", "torus", "three_phase"} < set(found)
        for name, (difference, used, total) in found.items():
            assert difference < 1e-6
            assert used == name or (name == "auto" and used in ALGORITHMS)
            assert total == results[0][name][2]


def dying(rank):
    dist.init_process_group("gloo", timeout=timedelta(seconds=20))
    model = DistributedDataParallel(net())
    batchscale.ddp_hook(model, "shared_memory", timeout_seconds=20)
    gradients(model, rank)
    if rank == 1:
        return ""
    try:
        gradients(model, rank)
    except Exception as error:
        return str(error)
    return "no error"


def test_a_peer_that_died_is_named():
    said = in_processes(2, dying)
    assert "all-reduce of DDP's gradients by shared_memory (rank 0 of 2): rank 1 died" in said[0]
    assert os.environ.get("RANK") is None
