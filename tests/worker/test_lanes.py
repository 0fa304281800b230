"""Lanes: workers of a group in passes of their own, together at every batch norm."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from batchscale.errors import RecipeError
from batchscale.worker.batch_norm import replace_batch_norm
from batchscale.worker.lanes import Lanes
from batchscale.worker.shared_batch_norm import alone

CPU = torch.device("cpu")


class Dense(nn.Module):
    """Every batch norm sees all that came before it, as in a DenseNet; gammas of one layer are frozen."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.norms = nn.ModuleList([nn.BatchNorm2d(c) for c in (2, 4, 6, 8)])
        self.convolutions = nn.ModuleList([nn.Conv2d(c, 2, 3, padding=1) for c in (2, 4, 6, 8)])
        self.linear = nn.Linear(10, 3)
        self.norms[1].requires_grad_(False)

    def forward(self, x):
        for norm, convolution in zip(self.norms, self.convolutions, strict=True):
            x = torch.cat([x, convolution(F.relu(norm(x)))], 1)
        return self.linear(x.mean((2, 3)))


def dense(span=3, dtype=torch.float64):
    model, statistics, _, _ = replace_batch_norm(Dense().to(dtype), dtype, CPU, span)
    return model, statistics


def losses(model, parts):
    return [lambda part=part: model(part).square().sum() for part in parts]


def test_lanes_give_the_gradients_of_one_pass_of_the_group_each_worker_s_apart():
    model, statistics = dense()
    plain, whole = copy.deepcopy(model), torch.randn(6, 2, 5, 5, dtype=torch.float64)
    lanes = Lanes(model, CPU)
    parts = [part.clone() for part in whole.chunk(3)]
    values = lanes.run(losses(model, parts), statistics, 0, alone)
    torch.autograd.backward(values)
    plain.norms[0]._statistics.begin_pass(3)
    loss = plain(whole).square().sum()
    loss.backward()
    assert sum(values).item() == pytest.approx(loss.item(), rel=1e-12)
    gradients = [lanes.gradients(lane) for lane in range(3)]
    for (name, parameter), reference in zip(model.named_parameters(), plain.parameters(), strict=True):
        assert parameter.grad is None, name
        if parameter.requires_grad:
            total = sum(of[parameter] for of in gradients)
            torch.testing.assert_close(total, reference.grad, rtol=1e-9, atol=1e-12)
            if parameter.ndim == 4:
                assert not torch.allclose(gradients[0][parameter], gradients[1][parameter])
        else:
            assert parameter not in gradients[0]


def test_a_second_run_begins_without_gradients_and_sees_the_weights_of_now():
    model, statistics = dense()
    lanes, parts = Lanes(model, CPU), [torch.randn(2, 2, 5, 5, dtype=torch.float64) for _ in range(3)]

    def run():
        torch.autograd.backward(lanes.run(losses(model, parts), statistics, 0, alone))
        return lanes.gradients(1)[model.linear.weight].clone()

    first = run()
    assert torch.equal(first, run())
    with torch.no_grad():
        model.linear.weight.mul_(2)
    assert torch.equal(lanes.gradients(1)[model.linear.weight], first)
    assert not torch.equal(first, run())


def test_random_numbers_and_autocast_are_a_lane_s_own():
    model, statistics = dense(span=2, dtype=torch.float32)
    drawn = {}

    def run(seed, low):
        torch.manual_seed(seed)
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            first = torch.rand(2)
            model(torch.randn(2, 2, 5, 5))
            second = torch.rand(2)
            product = torch.ones(2, 2) @ torch.ones(2, 2)
        drawn[seed] = (first, second, product.dtype)

    torch.manual_seed(9)
    before = torch.get_rng_state()
    with torch.no_grad():
        Lanes(model, CPU).run([lambda: run(1, True), lambda: run(2, False)], statistics, 0, alone)
    assert torch.equal(before, torch.get_rng_state())
    assert not torch.is_autocast_enabled("cpu")
    together = dict(drawn)
    for seed, low in ((1, True), (2, False)):
        other, single = dense(span=1, dtype=torch.float32)
        single.begin_pass(1)
        model = other
        run(seed, low)
        assert torch.equal(drawn[seed][0], together[seed][0])
        assert torch.equal(drawn[seed][1], together[seed][1])
        assert drawn[seed][2] == together[seed][2]


class Chooses(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.BatchNorm1d(2), nn.BatchNorm1d(2)

    def forward(self, x):
        return (self.first if x.sum() > 0 else self.second)(x)


@pytest.mark.parametrize("way", ["another layer", "fewer layers", "raises"])
def test_lanes_that_part_are_an_error_and_leave_the_model_as_it_was(way):
    model, statistics, _, _ = replace_batch_norm(nn.Sequential(Chooses()), torch.float32, CPU, 2)
    parameters = list(model.parameters())

    def broken():
        if way == "raises":
            raise ValueError("of a lane")
        return model(-torch.ones(2, 2)) if way == "another layer" else torch.zeros(())

    left = []

    def waiting():
        try:
            with torch.autocast("cpu", torch.bfloat16):
                return model(torch.ones(2, 2))
        finally:
            left.append(True)

    random = torch.get_rng_state()
    expected = (ValueError, "of a lane") if way == "raises" else (RecipeError, r"batch_norm.span=2: .*use .*span=1")
    with pytest.raises(expected[0], match=expected[1]):
        Lanes(model, CPU).run([waiting, broken], statistics, 0, alone)
    assert left == [True]
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    assert torch.equal(random, torch.get_rng_state())
    assert not torch.is_autocast_enabled("cpu")
    assert torch.is_grad_enabled()
