"""Hessian products in forward mode: those of a second backward pass, and only where they are."""

import pytest
import torch
from torch import nn

from batchscale.data.examples import TensorExamples
from batchscale.data.feed import Normalizer
from batchscale.measure import objective as objectives
from batchscale.measure.function import in_threads
from batchscale.measure.objective import Objective
from batchscale.models.unet import UNet
from batchscale.task import Classification
from batchscale.task.segmentation import Segmentation


@pytest.fixture(autouse=True)
def one_thread():
    with in_threads(1):
        yield


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def classified(net, **settings):
    examples = TensorExamples(drawn(7, 1, 6, 6), torch.arange(7) % 3)
    normalizer = Normalizer([0.0], [1.0], torch.float64, torch.contiguous_format, torch.device("cpu"))
    return Objective(net.double(), Classification(3), examples, normalizer, chunk=3, **settings)


def tied_net(middle=None):
    """Two convolutions of one weight, batch norm, a frozen bias, and what stands in the middle."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 2, 1), nn.Conv2d(2, 2, 3), middle or nn.Tanh(), nn.BatchNorm2d(2), nn.Conv2d(2, 2, 3),
        nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(2, 3),
    )  # fmt: skip
    net[4].weight = net[1].weight
    net[8].bias.requires_grad_(False)
    return net


def by_second_backward(f, vectors):
    f._forward = False
    return f.hessian_products(vectors)


@pytest.mark.parametrize("parameters", [None, ["1", "8"]])
def test_products_of_a_net_with_convolutions_are_those_of_a_second_backward_pass(parameters):
    f, vectors = classified(tied_net(), parameters=parameters), None
    vectors = torch.stack([drawn(f.size, seed=seed) for seed in (1, 2)])
    products = f.hessian_products(vectors)
    assert f._forward
    torch.testing.assert_close(products, by_second_backward(f, vectors), rtol=1e-10, atol=1e-13)
    assert all(weight.grad is None for weight in f.model.parameters())


def test_products_of_a_unet_are_those_of_a_second_backward_pass():
    torch.manual_seed(0)
    examples = TensorExamples(drawn(4, 1, 16, 16), torch.randint(0, 2, (4, 16, 16)))
    normalizer = Normalizer([0.0], [1.0], torch.float64, torch.contiguous_format, torch.device("cpu"))
    f = Objective(UNet(1, 2, 2, 2).double(), Segmentation(2), examples, normalizer, chunk=2)
    vector = drawn(1, f.size)
    product = f.hessian_products(vector)
    assert f._forward
    torch.testing.assert_close(product, by_second_backward(f, vector), rtol=1e-9, atol=1e-12)


class Doubling(torch.autograd.Function):
    """Has a second derivative, and no forward mode."""

    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, slope):
        return 2 * slope


class Double(nn.Module):
    def forward(self, x):
        return Doubling.apply(x).tanh()


class HalfHidden(nn.Module):
    """A factor that hangs on the input, and through which no gradient goes: forward mode does not see that."""

    def forward(self, x):
        with torch.no_grad():
            factor = x.square()
        return x * factor


@pytest.mark.parametrize("middle", [Double(), HalfHidden()])
def test_where_forward_mode_is_missing_or_another_function_it_is_not_taken(middle):
    f = classified(tied_net(middle))
    vectors = drawn(1, f.size)
    products = f.hessian_products(vectors)
    assert f._forward is False
    torch.testing.assert_close(products, by_second_backward(f, vectors))


def test_a_net_without_convolutions_is_not_tried(monkeypatch):
    monkeypatch.setattr(objectives, "forward_products", None)
    monkeypatch.setattr(objectives, "forward_serves", None)
    f = classified(nn.Sequential(nn.Flatten(), nn.Linear(36, 3)))
    assert f.hessian_products(drawn(1, f.size)).norm() > 0
