"""The trial of pass sizes where memory runs out: the largest that fits is found, and training goes on."""

import contextlib

import torch
from support.on_device import on_device, opened, weights_after
from torch import nn

import batchscale
from batchscale.build import trial

MOST = 128  # images of a pass that fit


class Wide(nn.Module):
    """A net that keeps some MiB an image; on the CPU, whose memory has no bound of its own, it says when it is full."""

    def __init__(self, device):
        super().__init__()
        torch.manual_seed(0)
        self.convolution, self.linear = nn.Conv2d(1, 2, 3, padding=1), nn.Linear(2, 4)
        self.device, self.copies = device, 64 if device == "cuda" else 1

    def forward(self, images):
        if self.device == "cpu" and len(images) > MOST:
            raise torch.OutOfMemoryError("out of memory")
        outputs = self.convolution(images)
        for _ in range(self.copies):
            outputs = outputs.exp().log()  # each keeps its output for backward
        return self.linear(outputs.mean((2, 3)))


@contextlib.contextmanager
def little_memory(device):
    """On a GPU: 1 GiB; a pass of 256 images of 64 x 64 keeps 1 GiB and more."""
    if device == "cpu":
        yield
        return
    torch.cuda.empty_cache()
    used = torch.cuda.memory_reserved()
    torch.cuda.set_per_process_memory_fraction((used + (1 << 30)) / torch.cuda.mem_get_info()[1])
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()


@on_device
def test_a_size_that_does_not_fit_ends_the_larger_ones_and_the_run_goes_on(device, monkeypatch):
    for name in ("_TRIAL_SECONDS", "_GPU_TRIAL_SECONDS"):
        monkeypatch.setattr(trial, name, 60.0)  # memory is to end the trial, and no clock
    monkeypatch.setattr(trial, "_MOST_ROUNDS", 1)
    side = 64 if device == "cuda" else 8
    images = torch.zeros(512, 1, side, side, dtype=torch.uint8)
    data = batchscale.Dataset("own", images, torch.arange(512) % 4, images[:8], torch.arange(8) % 4, 4)
    overrides = ("minibatch.workers=16", "minibatch.per_worker=32", "model.name=own")
    with little_memory(device), opened(device, data, *overrides, model=Wide(device)) as parts:
        largest = parts.decided.largest_that_fits
        assert largest is not None
        assert parts.decided.micro_batch <= largest < 512
        assert all(tensor.isfinite().all() for tensor in weights_after(1, parts).values())
