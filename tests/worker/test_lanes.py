"""Lanes: workers of a group in passes of their own, together at every batch norm."""

import contextlib
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
    lanes = Lanes(model, CPU, True)
    parts = [part.clone() for part in whole.chunk(3)]
    values = lanes.run(losses(model, parts), statistics, 0, alone)
    torch.autograd.backward(values)
    plain.norms[0]._statistics.begin_pass(3)
    loss = plain(whole).square().sum()
    loss.backward()
    assert sum(values).item() == pytest.approx(loss.item(), rel=1e-12)
    assert all(parameter.grad is None for parameter in model.parameters())
    references = [p.grad for p in plain.parameters() if p.requires_grad][::-1]  # the last one first
    for reference, *apart in zip(references, *map(lanes.gradients, range(3)), strict=True):
        torch.testing.assert_close(sum(apart), reference, rtol=1e-9, atol=1e-12)
        assert not torch.allclose(apart[0], apart[1])


def test_a_second_run_begins_without_gradients_and_sees_the_weights_of_now():
    model, statistics = dense()
    lanes, parts = Lanes(model, CPU, True), [torch.randn(2, 2, 5, 5, dtype=torch.float64) for _ in range(3)]

    def run():
        torch.autograd.backward(lanes.run(losses(model, parts), statistics, 0, alone))
        return lanes.gradients(1)[1].clone()  # of the last layer's weight: its bias comes first

    first = run()
    assert torch.equal(first, run())
    with torch.no_grad():
        model.linear.weight.mul_(2)
    assert torch.equal(lanes.gradients(1)[1], first)
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
        Lanes(model, CPU, True).run([lambda: run(1, True), lambda: run(2, False)], statistics, 0, alone)
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
    expected = (
        (ValueError, "of a lane")
        if way == "raises"
        else (RecipeError, r"its workers run other batch norms .*use batch_norm.span=1")
    )
    with pytest.raises(expected[0], match=expected[1]):
        Lanes(model, CPU, True).run([waiting, broken], statistics, 0, alone)
    assert left == [True]
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    assert torch.equal(random, torch.get_rng_state())
    assert not torch.is_autocast_enabled("cpu")
    assert torch.is_grad_enabled()


def hooked(model):
    model[0].weight.register_hook(lambda gradient: gradient * 0)


def masked(model):
    model[0].weight.register_post_accumulate_grad_hook(lambda parameter: None)


class Kind(nn.Parameter):
    pass


def of_a_class(model):
    model[0].weight = Kind(model[0].weight.detach())


@pytest.mark.parametrize(
    ("change", "message"),
    [(hooked, "'0.weight' has hooks"), (masked, "'0.weight' has hooks"), (of_a_class, "'0.weight' is a Kind")],
)
def test_parameters_that_a_copy_would_not_stand_for_are_refused(change, message):
    model = nn.Sequential(nn.Linear(2, 2))
    change(model)
    with pytest.raises(RecipeError, match=message):
        Lanes(model, CPU, False)


def test_a_lane_that_catches_everything_is_left_all_the_same():
    model, statistics, _, _ = replace_batch_norm(nn.Sequential(Chooses()), torch.float32, CPU, 2)
    comes = []

    def stubborn():
        while len(comes) < 50:
            comes.append(True)
            with contextlib.suppress(BaseException):
                model(torch.ones(2, 2))

    def broken():
        raise ValueError("of a lane")

    torch.set_grad_enabled(True)
    with pytest.raises(ValueError, match="of a lane"):
        Lanes(model, CPU, True).run([stubborn, broken], statistics, 0, alone)
    assert 2 <= len(comes) < 50
    assert torch.is_grad_enabled()
