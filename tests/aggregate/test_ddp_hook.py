"""batchscale's all-reduces in plain DistributedDataParallel: DDP's own gradients, to rounding."""

import contextlib
import os
from datetime import timedelta
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from support.devices import FakeQueue, NoWait
from support.worlds import in_processes
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import batchscale
from batchscale.aggregate import hook as hooks
from batchscale.aggregate.hook import _Hook
from batchscale.comm import ALGORITHMS, Choice, Reducer, World
from batchscale.comm.engines import Aside
from batchscale.comm.world import world as worlds
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


class Odd(nn.Module):
    """Some weights are used on rank 0 only."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.always, self.sometimes = nn.Linear(30, 30), nn.Linear(30, 30)

    def forward(self, x):
        return self.always(x) + (self.sometimes(x) if dist.get_rank() == 0 else 0)


def steps(model, rank, contexts):
    """Gradients of a few backward passes; those in no_sync are added to the next."""
    generator = torch.Generator().manual_seed(rank)
    dtype = next(model.parameters()).dtype
    for context in contexts:
        with model.no_sync() if context else contextlib.nullcontext():
            model(torch.randn(8, 30, generator=generator).to(dtype)).square().sum().backward()
    return torch.cat([p.grad.float().flatten() for p in model.parameters()])


def uses(rank, algorithm):
    """What users do with DDP: unused weights, accumulation, half precision, several models in one backward."""
    dist.init_process_group("gloo", timeout=timedelta(seconds=60))
    found = {}

    def both(name, make, run):
        results = []
        for hooked in (False, True):
            models = make()
            for model in models if hooked else ():
                batchscale.ddp_hook(model, algorithm)
            results.append(run(models))
        found[name] = float((results[0] - results[1]).norm() / results[0].norm())

    both("unused", lambda: [DistributedDataParallel(Odd(), find_unused_parameters=True)],
         lambda m: steps(m[0], rank, [False, False, False]))  # fmt: skip
    both("no_sync", lambda: [DistributedDataParallel(net())], lambda m: steps(m[0], rank, [True, True, False]))
    both("half", lambda: [DistributedDataParallel(net().to(torch.bfloat16))], lambda m: steps(m[0], rank, [False]))
    both("twins", lambda: [DistributedDataParallel(net(), bucket_cap_mb=0.5) for _ in range(2)], twins)
    group = dist.new_group()
    with pytest.raises(UsageError, match="process group of its own"):
        batchscale.ddp_hook(DistributedDataParallel(net(), process_group=group), algorithm)
    dist.barrier()
    dist.destroy_process_group()
    return found


def twins(models):
    generator = torch.Generator().manual_seed(dist.get_rank())
    for _ in range(5):
        one, two = torch.randn(2, 8, 30, generator=generator)
        (models[0](one).square().sum() + 3 * models[1](two).square().sum()).backward()
    return torch.cat([p.grad.flatten() for model in models for p in model.parameters()])


@pytest.mark.parametrize("algorithm", ["builtin", "shared_memory", "halving_doubling"])
def test_what_users_do_with_ddp(algorithm):
    for found in in_processes(2, uses, algorithm):
        assert set(found) == {"unused", "no_sync", "half", "twins"}
        for name, difference in found.items():
            assert difference < (1e-2 if name == "half" else 1e-6), name


def dying(rank):
    dist.init_process_group("gloo", timeout=timedelta(seconds=60))
    model = DistributedDataParallel(net())
    batchscale.ddp_hook(model, "shared_memory", timeout_seconds=60)
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


def on_a_gpu(monkeypatch, algorithm):
    """A hook on a world that says it is of GPUs, what DDP hands it, and the queue and the works of its reductions."""
    world = World(0, 4, torch.device("cuda", 0))
    world.exchanges.queue = FakeQueue()
    works = []
    monkeypatch.setattr(worlds.dist, "all_reduce", lambda *_, **__: works.append(NoWait()) or works[-1])
    monkeypatch.setattr(world.exchanges, "meet", lambda *_: None)
    reducer = Reducer(world, Choice(((0, algorithm),)))
    return _Hook(reducer), world.queue, works


@pytest.mark.parametrize(("dtype", "mean"), [(torch.float32, 2.0), (torch.bfloat16, 8.0)])
def test_on_gpus_the_hook_returns_before_the_sum_is_there(monkeypatch, dtype, mean):
    """On 91b3349 it waited, and with it all that backward had still to do."""
    hook, queue, works = on_a_gpu(monkeypatch, "builtin")
    buffer = torch.full((3,), 8.0, dtype=dtype)
    future = hook.reduce(None, SimpleNamespace(buffer=lambda: buffer))
    assert not future.done()
    assert queue.marks == 0  # nobody waits for the device
    assert buffer.tolist() == ([8.0] * 3 if dtype == torch.float32 else [2.0] * 3)  # short ones are divided before
    buffer.fill_(8.0)  # the sum
    works[0].future.set_result([buffer])
    assert future.value().tolist() == [mean] * 3


def test_on_gpus_other_ways_run_aside_and_nobody_waits(monkeypatch):
    hook, queue, _ = on_a_gpu(monkeypatch, "torus")
    where = []
    hook._reducer._engines["torus"] = Aside(hook._reducer.world, lambda tensor, what: where.append(queue.is_aside))
    ended = []
    monkeypatch.setattr(hook, "_end", lambda total: ended.append(queue.is_aside) or total.div_(4))
    monkeypatch.setattr(hooks, "Future", lambda devices: torch.futures.Future())
    future = hook.reduce(None, SimpleNamespace(buffer=lambda: torch.full((3,), 8.0)))
    assert where == ended == [True]
    assert future.value().tolist() == [2.0] * 3
