"""Sums of a group of one by a device's own backend; processes that share a GPU."""

from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
from support.on_device import GPU, on_device
from support.worlds import in_processes, trained

from batchscale.comm.world import nccl
from batchscale.comm.world.device import describe

SMALL = ("minibatch.workers=6", "minibatch.per_worker=16", "epochs=0.2", "numerics.exact=true", "numerics.threads=1")


@pytest.fixture
def group(device):
    """A group of one, made as a world makes its own: NCCL's on a GPU. Warnings are errors."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    where = torch.device(device, 0) if device == "cuda" else torch.device("cpu")
    backend = "nccl" if device == "cuda" else "gloo"
    yield nccl.new_group(where, timedelta(seconds=60), backend), where
    dist.destroy_process_group()


@on_device
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64])
@pytest.mark.parametrize("operation", [dist.ReduceOp.SUM, dist.ReduceOp.MAX])
def test_all_that_is_summed_can_be_summed(group, device, dtype, operation):
    made, where = group
    tensor = torch.arange(-3, 5, device=where).to(dtype)
    dist.all_reduce(tensor, op=operation, group=made, async_op=True).wait()
    dist.barrier()  # by Gloo: the default group
    assert tensor.tolist() == list(range(-3, 5))


def described(rank, device):
    return describe(torch.device(device, 0) if device == "cuda" else torch.device(device)).kind


@on_device
def test_processes_on_one_device_train_the_same_bits_as_one(device, monkeypatch):
    """On one GPU by Gloo."""
    monkeypatch.setenv("BATCHSCALE_SHARE_GPUS", "1")
    overrides = (*SMALL, f"execution.device={device}")
    results = [in_processes(size, trained, "digits-cnn", overrides, None, None) for size in (1, 2, 3)]
    assert len({result["weights_sha256"] for world in results for result in world}) == 1
    assert in_processes(1, described, device) == [device]


@pytest.mark.parametrize("device", [pytest.param("cuda", marks=GPU)])
def test_a_gpu_tells_its_uuid(device):
    """By which ranks that share one are found."""
    assert describe(torch.device(device, 0)).uuid
