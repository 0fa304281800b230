"""The parts of `measure landscape`: filter-normalised directions, places between runs, points on disk."""

import copy
import json

import pytest
import torch
from torch import nn

from batchscale.data.examples import TensorExamples
from batchscale.data.feed import Normalizer
from batchscale.errors import UsageError
from batchscale.measure.landscape.directions import random_direction
from batchscale.measure.landscape.kept import KeptPoints
from batchscale.measure.landscape.places import Around, Between, axis
from batchscale.measure.objective import Objective
from batchscale.measure.parts import trained_weights
from batchscale.task import Classification


def net(seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ConvTranspose2d(4, 6, 2, groups=2), nn.GroupNorm(2, 6),
        nn.Flatten(), nn.Linear(54, 5), nn.LayerNorm((5, 1)), nn.Embedding(7, 3), nn.Linear(3, 3),
    )  # fmt: skip
    nn.init.normal_(model[6].weight)
    model[8].weight.requires_grad_(False)
    return model


def by_name(model, direction):
    names = {id(weight): name for name, weight in model.named_parameters()}
    weights = trained_weights(model)
    pieces = torch.split(direction, [weight.numel() for weight in weights])
    return {names[id(w)]: piece.view(w.shape) for w, piece in zip(weights, pieces, strict=True)}


def direction_of(model, seed=0, number=1):
    return random_direction(model, trained_weights(model), seed, number)


def test_each_filter_is_as_long_as_the_weights_own():
    model = net()
    drawn = by_name(model, direction_of(model))
    assert "8.weight" not in drawn  # frozen
    for name in ("0.weight", "5.weight", "7.weight"):
        lengths = drawn[name].flatten(1).norm(dim=1)
        torch.testing.assert_close(lengths, model.get_parameter(name).detach().double().flatten(1).norm(dim=1))
    deconvolution, weight = drawn["2.weight"], model[2].weight.detach().double()
    for group in range(2):  # inputs 2 g, 2 g + 1 make outputs 3 g .. 3 g + 2
        for channel in range(3):
            filters = [tensor[2 * group : 2 * group + 2, channel] for tensor in (deconvolution, weight)]
            torch.testing.assert_close(filters[0].norm(), filters[1].norm())
    zero = [name for name in drawn if name.endswith("bias")] + ["1.weight", "3.weight", "6.weight"]
    assert all(not drawn[name].any() for name in zero)


def test_a_filter_of_zeros_stays():
    model = nn.Linear(3, 2, bias=False)
    with torch.no_grad():
        model.weight[1] = 0
    drawn = direction_of(model).view(2, 3)
    assert drawn.isfinite().all()
    assert not drawn[1].any()
    assert drawn[0].any()


def test_directions_hang_on_seed_and_number_and_of_the_weights_on_lengths_alone():
    model, other = net(), net(seed=1)
    assert torch.equal(direction_of(model), direction_of(net()))
    for seed, number in ((0, 2), (1, 1)):
        assert not torch.equal(direction_of(model), direction_of(model, seed, number))
    first, second = (by_name(one, direction_of(one))["5.weight"] for one in (model, other))
    units = [tensor / tensor.norm(dim=1, keepdim=True) for tensor in (first, second)]
    torch.testing.assert_close(*units)
    wide = nn.Linear(2000, 50, bias=False)
    first, second = (direction_of(wide, number=number) for number in (1, 2))
    assert abs(float(first @ second / (first.norm() * second.norm()))) < 0.02  # 100,000 numbers: 0.003 at random
    assert float(
        first.view(50, 2000)[0].abs().mean() / first.view(50, 2000)[0].square().mean().sqrt()
    ) == pytest.approx((2 / torch.pi) ** 0.5, abs=0.02)  # as of N(0, 1)


def test_layers_that_are_rescaled_with_the_same_outputs_show_the_same_picture():
    """Li et al. 2018, section 4: relu(c x) = c relu(x), so c = 4 in one layer and 1 / 4 in the next change nothing."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3))
    rescaled = copy.deepcopy(net)
    with torch.no_grad():
        rescaled[0].weight.mul_(4)
        rescaled[0].bias.mul_(4)
        rescaled[2].weight.div_(4)
    examples = TensorExamples(torch.randn(20, 5), torch.randint(0, 3, (20,)))
    normalizer = Normalizer([0.0], [1.0], torch.float32, torch.contiguous_format, torch.device("cpu"))
    losses = []
    for model in (net, rescaled):
        objective, drawn = Objective(model, Classification(3), examples, normalizer, chunk=20), direction_of(model)
        centre = objective.vector()
        for share in (0.0, 0.5, -2.0):
            with objective.at(centre + share * drawn):
                losses.append(objective.loss())
    assert losses[:3] == pytest.approx(losses[3:], rel=1e-6)
    assert len(set(losses[:3])) == 3


def test_axes_have_the_run_and_both_ends_exactly():
    assert {-1.0, 0.0, 1.0} <= set(axis(-1, 1, 25))
    assert {-0.5, 0.0, 1.0, 1.5} <= set(axis(-0.5, 1.5, 25))
    assert {-0.1, 0.0, 1.0, 1.1} <= set(axis(-0.1, 1.1, 13))  # which are no floats
    assert {-0.7, 0.0, 1.0} <= set(axis(-0.7, 1.9, 27))
    assert axis(0.1, 0.7, 3) == pytest.approx((0.1, 0.4, 0.7))


def test_a_line_between_nets_with_other_frozen_weights_is_refused():
    """Its far end would not be the second net."""
    first, second = net(0), net(1)
    second[8].load_state_dict(first[8].state_dict())
    assert Between.of(first, second, ("a", "b")).direction.norm() > 0
    with torch.no_grad():
        second[8].weight[0, 0] += 1
    with pytest.raises(UsageError, match=r"b: its frozen weight 8\.weight differs from that of a"):
        Between.of(first, second, ("a", "b"))
    first[8].weight.requires_grad_(True)
    with pytest.raises(UsageError, match=r"b: is another net than a \(8\.weight\)"):
        Between.of(first, second, ("a", "b"))


def test_around_a_run_the_weights_move_and_nothing_else():
    centre, directions = torch.randn(6, dtype=torch.float64), tuple(torch.randn(2, 6, dtype=torch.float64))
    around = Around(centre.clone(), directions)
    torch.testing.assert_close(around.weights((0.5, -2.0)), centre + 0.5 * directions[0] - 2 * directions[1])
    assert torch.equal(around.weights((0.0, 0.0)), centre)
    assert torch.equal(around.centre, centre)
    assert around.averages((1.0, 1.0)) == {}


def test_between_runs_both_ends_are_exact_and_variances_stay_at_zero_or_above():
    ends = torch.tensor([[0.1, 1e8, -3.0], [0.7, 1.0, 1e-9]], dtype=torch.float64)
    variances = torch.tensor([1.0, 2.0], dtype=torch.float64), torch.tensor([5.0, 1.0], dtype=torch.float64)
    between = Between((ends[0], ends[1]), {"n.running_var": variances, "n.running_mean": variances})
    for place in (0, 1):
        assert torch.equal(between.weights((float(place),)), ends[place])
        assert torch.equal(between.averages((float(place),))["n.running_var"], variances[place])
    assert between.averages((0.25,))["n.running_var"].tolist() == [2.0, 1.75]
    assert between.averages((-0.5,))["n.running_var"].tolist() == [0.0, 2.5]
    assert between.averages((-0.5,))["n.running_mean"].tolist() == [-1.0, 2.5]


def test_points_on_disk_come_back_bit_by_bit_without_the_line_that_was_cut(tmp_path):
    kept = KeptPoints(tmp_path, "abc", 2)
    points = {(0, 0): (0.1 + 0.2, 1e-300), (0, 1): (None, 12.5), (1, 0): (1 / 3, -0.0)}
    for number, ((run, point), values) in enumerate(points.items()):
        kept.add(number % 2, run, point, values)
    with (tmp_path / "points-abc-0.jsonl").open("ab") as file:
        file.write(json.dumps([1, 7, [0.25, 0.125]]).encode()[:-4])
    assert kept.read() == points
    kept.add(0, 1, 8, (2.0, 3.0))
    assert kept.read() == {**points, (1, 8): (2.0, 3.0)}
    assert KeptPoints(tmp_path, "other", 2).read() == {}
    assert KeptPoints(tmp_path, "abc", 4).read() == {}
    KeptPoints(None, "abc", 2).add(0, 0, 0, (1.0, 2.0))
    assert KeptPoints(None, "abc", 2).read() == {}
