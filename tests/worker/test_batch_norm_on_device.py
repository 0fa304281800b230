"""Batch norm of several workers in one pass, on a device, is torch's own on one worker at a time."""

import copy

import pytest
import torch
from support.on_device import full_float32, on_device
from torch import nn

from batchscale.worker.batch_norm import replace_batch_norm

N, CHANNELS = 6, 16
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 0.03, torch.float64: 1e-11}


@on_device
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("workers", [1, 4])
def test_grouped_batch_norm_is_torchs_on_each_worker(device, workers, dtype, memory_format):
    """bfloat16: activations beside float32 parameters, as autocast gives them."""
    parameters = torch.float32 if dtype == torch.bfloat16 else dtype
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    plain = nn.BatchNorm2d(CHANNELS).to(device, parameters)
    with torch.no_grad():
        plain.weight.copy_(draw(CHANNELS))
        plain.bias.copy_(draw(CHANNELS))
    images = (3 * draw(workers * N, CHANNELS, 7, 7) + 2).to(device, dtype).contiguous(memory_format=memory_format)
    upstream = draw(*images.shape).to(device, dtype).contiguous(memory_format=memory_format)
    model, statistics, _, _ = replace_batch_norm(copy.deepcopy(plain), parameters, torch.device(device))
    with full_float32():
        inputs = images.clone().requires_grad_()
        statistics.begin_pass(workers)
        outputs = model(inputs)
        outputs.backward(upstream)
        rows = torch.zeros(2 * CHANNELS, dtype=parameters, device=device)
        tolerance = {"rtol": TOLERANCE[dtype], "atol": TOLERANCE[dtype]}
        for part, worker_outputs, gradient in zip(*(t.split(N) for t in (images, outputs, upstream)), strict=True):
            one = copy.deepcopy(plain)
            one.momentum = 1.0  # then its averages are this worker's statistics
            own_inputs = part.clone().requires_grad_()
            expected = one(own_inputs)
            expected.backward(gradient)
            torch.testing.assert_close(worker_outputs, expected, **tolerance)
            torch.testing.assert_close(inputs.grad.split(N)[_place(part, images)], own_inputs.grad, **tolerance)
            rows += torch.cat([one.running_mean, one.running_var])
            plain.weight.grad = one.weight.grad if plain.weight.grad is None else plain.weight.grad + one.weight.grad
            plain.bias.grad = one.bias.grad if plain.bias.grad is None else plain.bias.grad + one.bias.grad
    loose = {"rtol": 4 * TOLERANCE[dtype], "atol": 40 * TOLERANCE[dtype]}  # sums over all images of a channel
    torch.testing.assert_close(model.weight.grad, plain.weight.grad, **loose)
    torch.testing.assert_close(model.bias.grad, plain.bias.grad, **loose)
    torch.testing.assert_close(statistics.summed().flatten().to(parameters), rows, **loose)


def _place(part, images):
    """Which worker's images these are."""
    return (part.data_ptr() - images.data_ptr()) // (part.numel() * part.element_size())
