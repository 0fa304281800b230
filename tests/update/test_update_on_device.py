"""An optimizer's steps on a device are those of the CPU."""

import pytest
import torch
from support.on_device import assert_near, full_float32, on_device, opened, pictures, weights_after
from torch import nn

from batchscale.update.optimizers import OPTIMIZERS

NEEDED = {
    "sgd": {"momentum": 0.9},
    "sgd_lr_in_buffer": {"momentum": 0.9},
    "rmsprop_warmup": {"epoch_at": float, "center_epochs": 3.0, "period_epochs": 4.0},
}
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}


def updated(name, dtype, device, steps):
    """Weights after steps whose gradients are the same on every device."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(30, 40), (40,), (8, 3, 5, 5)]
    weights = [nn.Parameter(torch.randn(shape, generator=generator, dtype=dtype).to(device)) for shape in shapes]
    optimizer = OPTIMIZERS[name]([(weights[:2], 0.01), (weights[2:], 0.0)], **NEEDED.get(name, {}))
    for lr in [0.1, 0.2, 0.05][:steps]:
        for weight in weights:
            weight.grad = torch.randn(weight.shape, generator=generator, dtype=dtype).to(device)
        optimizer.step(lr=lr)
    return {str(place): weight.detach().cpu() for place, weight in enumerate(weights)}


@on_device
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_steps_with_given_gradients_are_those_of_the_cpu(device, name, dtype):
    """The first, where state begins, and later ones, which use it."""
    tolerance = TOLERANCE[dtype] if name != "muon" else 0.03  # its products are of bfloat16
    for steps in (1, 3):
        with full_float32():
            ours, theirs = updated(name, dtype, device, steps), updated(name, dtype, "cpu", steps)
        assert_near(ours, theirs, tolerance)
        assert all(tensor.isfinite().all() for tensor in ours.values())
    assert any(
        not torch.equal(one, three)
        for one, three in zip(updated(name, dtype, device, 1).values(), ours.values(), strict=True)
    )


@on_device
@pytest.mark.parametrize("name", sorted(set(OPTIMIZERS) - {"muon"}))
def test_a_whole_step_in_float64_is_that_of_the_cpu(device, name):
    """Feed, forward, backward, sum, update and running averages."""
    overrides = (f"optimizer={{name: {name}}}", "model.name=resnet8", "precision=fp64", "numerics.micro_batch=16")
    results = []
    for where in (device, "cpu"):
        with opened(where, pictures(), *overrides) as parts:
            results.append(weights_after(2, parts))
    assert_near(*results, 1e-9)  # the first step of an adaptive optimizer divides by what may be nearly nothing
