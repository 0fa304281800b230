"""A worker's gradient and its batch norm, against torch's own on one worker at a time."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from batchscale.build.probe import Probe
from batchscale.errors import RecipeError
from batchscale.models import MODELS
from batchscale.task import Classification
from batchscale.worker.batch_norm import replace_batch_norm

CPU = torch.device("cpu")


def small_net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(),
        nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6, momentum=0.3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(6), nn.Linear(6, 3),
    ).double()  # fmt: skip


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("workers", [1, 2, 5])
def test_stacked_workers_equal_torch_on_one_worker_at_a_time(workers, memory_format):
    n, plain = 4, small_net().to(memory_format=memory_format)
    mine, statistics, averages, _ = replace_batch_norm(copy.deepcopy(plain), torch.float64, CPU)
    images = torch.randn(workers * n, 2, 6, 6, dtype=torch.float64).contiguous(memory_format=memory_format)
    images.requires_grad_()
    labels = torch.randint(0, 3, (workers * n,))
    statistics.begin_pass(workers)
    F.cross_entropy(mine(images), labels, reduction="sum").backward()
    stacked_input_grad = images.grad.clone()
    images.grad = None
    means = [torch.zeros_like(b) for b in plain.buffers()]
    for x, y in zip(images.split(n), labels.split(n), strict=True):
        one = copy.deepcopy(plain)
        F.cross_entropy(one(x), y, reduction="sum").backward()
        for p, q in zip(plain.parameters(), one.parameters(), strict=True):
            p.grad = q.grad if p.grad is None else p.grad + q.grad
        for mean, buffer in zip(means, one.buffers(), strict=True):
            mean += buffer / workers if buffer.is_floating_point() else 0
    for p, q in zip(mine.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(stacked_input_grad, images.grad, rtol=1e-10, atol=1e-12)
    # running averages: the mean over workers of what torch's own would have become, without their initial values
    averages.update(statistics.summed() / workers)
    before = dict(plain.named_buffers())
    for (name, buffer), mean in zip(mine.named_buffers(), means, strict=True):
        if name.endswith("num_batches_tracked"):
            assert buffer.item() == 1
        else:
            momentum = mine.get_submodule(name.rpartition(".")[0]).momentum
            torch.testing.assert_close(buffer, (mean - (1 - momentum) * before[name]) / momentum, rtol=1e-9, atol=1e-11)


def test_running_averages_are_those_of_torch_without_the_share_of_their_initial_values():
    plain = small_net()
    mine, statistics, averages, _ = replace_batch_norm(copy.deepcopy(plain), torch.float64, CPU)
    initial = dict(copy.deepcopy(plain).named_buffers())
    for step in range(1, 5):
        images = torch.randn(8, 2, 6, 6, dtype=torch.float64)
        statistics.begin_pass(1)
        mine(images), plain(images)
        averages.update(statistics.summed())
        for name, buffer in plain.named_buffers():
            if not name.endswith("num_batches_tracked"):
                left = (1 - plain.get_submodule(name.rpartition(".")[0]).momentum) ** step
                debiased = (buffer - left * initial[name]) / (1 - left)
                torch.testing.assert_close(mine.get_buffer(name), debiased, rtol=1e-10, atol=1e-12)


def test_statistics_that_a_model_brings_along_are_where_its_averages_begin():
    plain = small_net()
    plain[1].running_mean.fill_(3.0)  # as pretrained; the other layers hold the initial zeros and ones
    mine, statistics, averages, _ = replace_batch_norm(copy.deepcopy(plain), torch.float64, CPU)
    images = torch.randn(8, 2, 6, 6, dtype=torch.float64)
    statistics.begin_pass(1)
    mine(images), plain(images)
    averages.update(statistics.summed())
    torch.testing.assert_close(mine[1].running_mean, plain[1].running_mean, rtol=1e-10, atol=1e-12)
    assert not torch.allclose(mine[4].running_var, plain[4].running_var)


class Skipping(nn.Module):
    """Two batch norms; the second runs in every other call alone, the third never trains."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = nn.BatchNorm1d(3), nn.BatchNorm1d(3), nn.BatchNorm1d(3)
        self.calls = 0

    def train(self, mode=True):
        super().train(mode)
        self.third.eval()
        return self

    def forward(self, x):
        self.calls += 1
        return self.third(self.second(self.first(x)) if self.calls % 2 else self.first(x))


def test_a_layer_that_no_pass_runs_keeps_its_averages_and_one_that_some_run_has_the_mean_over_those():
    torch.manual_seed(0)
    model, statistics, averages, _ = replace_batch_norm(Skipping().double(), torch.float64, CPU)
    model.train()
    for _ in range(60):
        absent, mean = [0.0] * 3, 0.0
        for images in 3 * torch.randn(4, 8, 3, dtype=torch.float64) + 5:  # four workers of eight
            statistics.begin_pass(1)
            model(images)
            mean = mean + statistics.summed() / 4
            for number in statistics.absent():
                absent[number] += 1 / 4
        assert absent == [0, 0.5, 1]
        averages.update(mean, absent)
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    averages.update(torch.zeros_like(mean), [1.0] * 3)
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())
    assert (model.first.running_mean - 5).abs().max() < 0.5
    assert (model.first.running_var - 9).abs().max() < 3
    assert (model.second.running_var - 1).abs().max() < 0.2  # of what the first has normalised, n / (n - 1) larger
    assert torch.equal(model.third.running_mean, torch.zeros(3, dtype=torch.float64))
    assert [layer.num_batches_tracked.item() for layer in model.children()] == [60, 60, 0]


@pytest.mark.parametrize("workers", [1, 3])
def test_a_pass_that_is_not_finite_is_forgotten_by_the_next(workers):
    model, statistics, _, _ = replace_batch_norm(small_net(), torch.float64, CPU)
    images = torch.randn(workers * 4, 2, 6, 6, dtype=torch.float64)
    sums = []
    for factor in (1.0, float("inf"), 1.0):
        statistics.begin_pass(workers)
        model(images * factor)
        sums.append(statistics.summed().clone())
    assert not sums[1].isfinite().any()
    assert torch.equal(sums[0], sums[2])


def test_groups_of_workers_equal_torch_on_a_group_s_images_at_a_time():
    n, span, workers, plain = 2, 3, 6, small_net()
    spanning, over_groups, averages, _ = replace_batch_norm(copy.deepcopy(plain), torch.float64, CPU, span)
    mine, statistics, reference, _ = replace_batch_norm(copy.deepcopy(plain), torch.float64, CPU)
    images = torch.randn(workers * n, 2, 6, 6, dtype=torch.float64)
    over_groups.begin_pass(workers)
    statistics.begin_pass(workers // span)  # k/g workers of g n images
    assert torch.equal(spanning(images), mine(images))
    assert over_groups.workers == workers
    with pytest.raises(RecipeError, match=r"batch_norm.span=3: a pass of 4 workers holds no whole groups"):
        over_groups.begin_pass(4)
    averages.update(over_groups.summed() / workers)
    reference.update(statistics.summed() / (workers // span))
    for a, b in zip(spanning.buffers(), mine.buffers(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=0)


def test_without_running_averages_the_last_step_s_statistics_stay():
    model, statistics, averages, _ = replace_batch_norm(small_net(), torch.float64, CPU, averages=False)
    for _ in range(2):
        images = torch.randn(8, 2, 6, 6, dtype=torch.float64)
        statistics.begin_pass(2)
        with torch.no_grad():
            model(images)
        averages.update(statistics.summed() / 2)
    first = model[0](images)
    parts = torch.stack([part.var((0, 2, 3)) for part in first.chunk(2)])
    torch.testing.assert_close(model[1].running_mean, first.mean((0, 2, 3)), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(model[1].running_var, parts.mean(0), rtol=1e-10, atol=1e-12)
    assert not torch.allclose(model[1].running_var, first.var((0, 2, 3)), rtol=1e-4)  # nor that over all kn images
    assert model[1].num_batches_tracked == 2


def test_a_single_value_cannot_be_normalised_and_the_way_out_is_named():
    model, statistics, _, _ = replace_batch_norm(small_net(), torch.float64, CPU)
    said = r"minibatch.per_worker=1, batch_norm.span=1: .* use minibatch.per_worker=2 or more, or batch_norm.span=2"
    for workers in (1, 2):
        statistics.begin_pass(workers)
        with pytest.raises(RecipeError, match=said):
            model(torch.randn(workers, 2, 6, 6, dtype=torch.float64))
    with pytest.raises(RecipeError, match=said):
        Probe(model, statistics, torch.randn(1, 2, 6, 6, dtype=torch.float64), torch.zeros(1), Classification(3), 1)


def test_evaluation_equals_torch_and_names_stay():
    plain = small_net()
    mine, *_ = replace_batch_norm(copy.deepcopy(plain), torch.float64, CPU)
    assert list(mine.state_dict()) == list(plain.state_dict())
    images = torch.randn(5, 2, 6, 6, dtype=torch.float64)
    assert torch.equal(mine.eval()(images), plain.eval()(images))


def test_a_forward_pass_moves_no_running_average():
    mine, statistics, _, _ = replace_batch_norm(small_net(), torch.float64, CPU)
    before = {n: b.clone() for n, b in mine.named_buffers()}
    statistics.begin_pass(1)
    mine(torch.randn(4, 2, 6, 6, dtype=torch.float64))
    assert all(torch.equal(b, before[n]) for n, b in mine.named_buffers())


def test_the_models_own_layers_come_back():
    model = small_net()
    layers = [type(m) for m in model.modules()]
    _, _, _, restore = replace_batch_norm(model, torch.float64, CPU)
    assert [type(m) for m in model.modules()] != layers
    restore()
    assert [type(m) for m in model.modules()] == layers


@pytest.mark.parametrize("layer", [nn.SyncBatchNorm(3), nn.BatchNorm2d(3, momentum=None)])
def test_batch_norm_without_a_meaning_is_refused_by_name(layer):
    with pytest.raises(RecipeError, match=r"model layer '1': batch norm with"):
        replace_batch_norm(nn.Sequential(nn.ReLU(), layer), torch.float32, CPU)


class Scaled(nn.BatchNorm2d):
    def forward(self, x):
        return 2 * super().forward(x)


def test_a_batch_norm_with_a_forward_pass_of_its_own_is_refused_by_name():
    with pytest.raises(RecipeError, match=r"model layer '1': Scaled is a batch norm with a forward pass of its own"):
        replace_batch_norm(nn.Sequential(nn.ReLU(), Scaled(3)), torch.float32, CPU)


class DrawsInTheOpen(nn.Module):
    def forward(self, x):
        return F.dropout(x, 0.5, self.training).flatten(1)[:, :3]


class CountsCalls(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return x.flatten(1)[:, :3]


def probe(model, images=None):
    model, statistics, *_ = replace_batch_norm(model, torch.float32, CPU)
    images = torch.randn(4, 2, 6, 6) if images is None else images
    return Probe(model, statistics, images, torch.zeros(4, dtype=torch.int64), Classification(3), 1)


def test_the_probe_finds_random_draws_and_leaves_the_generator_alone():
    images = torch.randn(4, 2, 6, 6)
    state = torch.get_rng_state()
    assert probe(DrawsInTheOpen(), images).draws_random
    assert torch.equal(torch.get_rng_state(), state)
    assert not probe(nn.Sequential(nn.Flatten(), nn.Linear(72, 3))).draws_random


def test_the_probe_refuses_what_k_workers_give_no_meaning():
    with pytest.raises(RecipeError, match="writes to the buffer 'calls'"):
        probe(CountsCalls())
    with pytest.raises(RecipeError, match=r"gives \(4, 5\) for 4 images: must give logits \(4, 3\)"):
        probe(nn.Sequential(nn.Flatten(), nn.Linear(72, 5)))
    with pytest.raises(RecipeError, match=r"forward pass failed on images \(4, 2, 6, 6\)"):
        probe(nn.Linear(5, 3))


@pytest.mark.parametrize(
    "name",
    sorted(n for n in MODELS if not n.startswith(("unet", "tiramisu", "faster_rcnn", "transformer", "lstm"))),
)
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32)])
def test_every_classifier_gives_logits(name, shape):
    assert MODELS[name](shape, 10)(torch.randn(2, *shape)).shape == (2, 10)


def test_sizes_of_the_published_nets():
    def weights(name, shape):
        return sum(p.numel() for p in MODELS[name](shape, 10).parameters())

    assert weights("cnn", (1, 28, 28)) == 24_058
    assert weights("simple_cnn", (1, 28, 28)) == 3_274_634  # 832 + 51,264 + 3,212,288 + 10,250
    assert weights("resnet20", (3, 32, 32)) == 269_722  # He et al. 2015, table 6: 0.27 M
    assert weights("resnet8", (3, 32, 32)) == 75_290
