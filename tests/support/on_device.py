"""The same test on the CPU, always, and on a GPU, where there is one: what holds on the one is to hold on the other."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch

import batchscale
from batchscale.build.build import build
from batchscale.comm import World
from batchscale.recipe import recipe_from
from batchscale.training.parts import Parts
from support.runs import RECIPE

NO_GPU = "no GPU: torch.cuda.is_available() says so; benchmarks/gpu.sh runs these where there is one"
GPU = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason=NO_GPU)]

on_device = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=GPU)])


@contextlib.contextmanager
def full_float32() -> Iterator[None]:
    """While it is open, convolutions and products of float32 on a GPU are of float32 and not of TF32's 10 bits."""
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield
    torch.set_float32_matmul_precision(precision)


def pictures() -> Any:
    """64 images of 3 x 8 x 8 to train on, 20 to test on, of 4 classes."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (64, 3, 8, 8), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, 4, (64,), generator=generator)
    return batchscale.Dataset("own", images, labels, images[:20], labels[:20], 4)


@contextlib.contextmanager
def opened(device: str, data: Any, *overrides: str, **handed_in: Any) -> Iterator[Parts]:
    """The parts of a small run on a device, without a loop; 4 workers of 8 images unless overridden."""
    threads = torch.get_num_threads()
    world = World(0, 1, torch.device(device))
    parts = build(recipe_from(RECIPE, overrides), world, data.splits(), own_data=True, **handed_in)
    try:
        yield parts
    finally:
        parts.close()
        torch.set_num_threads(threads)


def weights_after(steps: int, parts: Parts) -> dict[str, torch.Tensor]:
    """Weights and running averages after so many steps, on the CPU."""
    feed = parts.make_feed()
    try:
        for step in range(steps):
            parts.step(step, feed.passes(step)).read()
    finally:
        feed.close()
    return {name: tensor.detach().cpu().clone() for name, tensor in parts.model.state_dict().items()}


def assert_near(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor], tolerance: float) -> None:
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(
            ours[name], theirs[name], rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
        )
