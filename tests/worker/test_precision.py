"""Low precision: float32 where something is kept, a loss scale that all processes move alike, skipped steps counted."""

import dataclasses
import json
import math

import pytest
import torch
import torch.nn.functional as F
from support.dues import stop_after
from support.update_runs import data as data
from support.update_runs import train
from support.worlds import in_processes
from torch import nn

from batchscale.run.run import Stopped
from batchscale.task import Classification
from batchscale.training.due import DUES
from batchscale.worker.precision import LossScale, LowPrecision
from batchscale.worker.scale import growth_steps

LOW = {"bf16": torch.bfloat16, "fp16": torch.float16}


@pytest.mark.parametrize("precision", sorted(LOW))
def test_passes_run_low_and_everything_kept_is_float32(precision):
    seen = []
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(108, 4))
    model[0].register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    model[0].register_full_backward_pre_hook(lambda module, outputs: seen.append(outputs[0].dtype))
    logits = LowPrecision(model, LOW[precision], torch.device("cpu"))(torch.randn(5, 1, 8, 8))
    assert logits.dtype == torch.float32
    logits.sum().backward()
    assert seen == [LOW[precision]] * 2
    assert {p.grad.dtype for p in model.parameters()} == {p.dtype for p in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("precision", sorted(LOW))
@pytest.mark.parametrize("micro_batch", [8, 16])
def test_a_low_run_is_near_the_float32_run(data, tmp_path, precision, micro_batch):
    exact = train(data, None, f"numerics.micro_batch={micro_batch}")
    low = train(data, tmp_path / "run", f"numerics.micro_batch={micro_batch}", f"precision={precision}")
    assert low.weights_sha256 != exact.weights_sha256
    assert low.train_loss == pytest.approx(exact.train_loss, rel=0.02)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert {line.get("loss_scale") for line in lines} == {65536.0 if precision == "fp16" else None}


def scaled(start=8.0, **options):
    weight = nn.Parameter(torch.zeros(3))
    weight.grad = torch.tensor([8.0, -1.0, 3e-5])
    return weight, LossScale([weight, nn.Parameter(torch.zeros(1))], start, **options)


@pytest.mark.parametrize(("workers", "factor"), [(1, 8), (6, 32), (256, 2048)])
def test_the_scale_is_taken_back_without_rounding(workers, factor):
    weight, scale = scaled()
    before = weight.grad.clone()
    assert scale.factor(workers) == factor  # s k, k rounded down to a power of two
    scale.unscale(workers)
    assert torch.equal(weight.grad * factor, before)


def test_the_scale_grows_back_within_a_run_of_few_steps():
    steps = {1_760: 88, 112_500: 2000, 40: 50}  # kn = 65,536 and 1,024 of ImageNet for 90 epochs, and a short one
    assert {total: growth_steps(total) for total in steps} == steps


def test_the_scale_halves_at_an_overflow_and_doubles_after_enough_finite_steps_in_a_row():
    _, scale = scaled(growth_steps=3)
    values = []
    for finite in [True, True, False, True, True, True, True, True, False]:
        assert scale.update(finite, 1)
        values.append(scale.value)
    assert values == [8, 8, 4, 4, 4, 8, 8, 8, 4]


def test_a_scale_below_the_minimum_never_recovers():
    _, scale = scaled(4.0)
    assert [scale.update(False, 1) for _ in range(3)] == [True, True, False]
    _, scale = scaled(4.0)
    assert [scale.update(False, 4) for _ in range(5)] == [True] * 4 + [False]


class Overflowing(nn.Module):
    """A linear model whose logits' gradient, as scaled, overflows above a limit."""

    def __init__(self, limit):
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.limit = nn.Linear(64, 4), limit

    def forward(self, x):
        logits = self.linear(x.flatten(1))
        if logits.requires_grad:
            limit = self.limit
            logits.register_hook(lambda g: torch.where(g.abs().max() > limit, g * float("inf"), g))
        return logits


def overflowed(rank, data, overrides):
    result = train(data, None, "precision=fp16", "numerics.micro_batch=8", *overrides, model=Overflowing(400.0))
    return result.status, result.skipped_steps, result.loss_scales, result.weights_sha256


def test_an_overflow_skips_the_step_on_every_process_and_the_run_goes_on(data):
    alone = overflowed(0, data, ["numerics.exact=true"])
    status, skipped, scales, _ = alone
    assert status == "done"
    assert skipped == len(scales) - 1 > 0
    assert scales == [[i, 65536.0 / 2**i] for i in range(skipped + 1)]
    assert in_processes(2, overflowed, data, ["numerics.exact=true"]) == [alone, alone]
    assert overflowed(0, data, [])[:3] == alone[:3]


def test_a_skipped_step_leaves_weights_optimizer_and_running_averages_as_they_were(data, tmp_path):
    model = nn.Sequential(Overflowing(-1.0), nn.BatchNorm1d(4))
    before = {name: t.clone() for name, t in model.state_dict().items()}
    out = tmp_path / "run"
    result = train(data, out, "precision=fp16", "optimizer={name: adamw}", "execution.log_steps=1", model=model)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert all(25 < line["train_error_percent"] <= 100 for line in lines)  # untrained: skipped, but counted
    assert result.status == "done"  # seven steps: the scale is still above its minimum
    assert (result.skipped_steps, result.train_loss is not None) == (7, True)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_an_overflow_that_no_scale_cures_ends_the_run_as_diverged_with_the_scales_history(data, tmp_path, capsys):
    result = train(data, None, "precision=fp16", "epochs=10", model=Overflowing(-1.0))
    assert (result.status, result.diverged_at_step, result.skipped_steps) == ("diverged", 18, 18)
    assert result.loss_scales == [[i, 65536.0 / 2**i] for i in range(19)]  # k = 5: S = 4 s falls below 1


class OverflowingForward(nn.Module):
    """A net whose forward pass overflows in float16 on the one white image, before batch norm."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.convolution, self.norm, self.linear = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Linear(144, 4)

    def forward(self, x):
        white = x.amin((1, 2, 3), keepdim=True) > 2  # as normalised; no other image is white all over
        return self.linear(self.norm(self.convolution(torch.where(white, x * 1e7, x))).relu().flatten(1))


@pytest.fixture(scope="module")
def one_white(data):
    images = data.train_images.clone()
    images[0] = 255
    return dataclasses.replace(data, train_images=images)


@pytest.mark.parametrize("exact", ["false", "true"])
def test_a_forward_pass_that_overflows_costs_its_own_step_alone(one_white, tmp_path, monkeypatch, exact):
    options = ("precision=fp16", "epochs=3", f"numerics.exact={exact}", "numerics.micro_batch=8")
    out = tmp_path / "straight"
    straight = train(one_white, out, *options, "execution.log_steps=1", model=OverflowingForward())
    assert (straight.status, straight.skipped_steps) == ("done", 3)  # the white image comes once an epoch
    assert straight.loss_scales[-1][1] == 65536.0 / 8
    assert math.isfinite(straight.train_loss)
    losses = [json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert losses.count(None) == 3
    lost = losses.index(None)
    monkeypatch.setitem(DUES, "stop", stop_after(lost + 1))
    with pytest.raises(Stopped):
        train(one_white, tmp_path / "run", *options, model=OverflowingForward())
    monkeypatch.undo()
    resumed = train(one_white, tmp_path / "run", *options, model=OverflowingForward(), resume="yes")
    assert (resumed.weights_sha256, resumed.skipped_steps) == (straight.weights_sha256, 3)


def test_the_scale_and_its_history_survive_a_stop(data, tmp_path, monkeypatch):
    options = ("precision=fp16", "numerics.micro_batch=8")
    straight = train(data, None, *options, model=Overflowing(400.0))
    for stop in (1, 3):
        monkeypatch.setitem(DUES, "stop", stop_after(stop))
        with pytest.raises(Stopped):
            train(data, tmp_path / "run", *options, model=Overflowing(400.0), resume="auto")
        monkeypatch.undo()
    resumed = train(data, tmp_path / "run", *options, model=Overflowing(400.0), resume="yes")
    assert resumed.weights_sha256 == straight.weights_sha256
    assert (resumed.loss_scales, resumed.skipped_steps) == (straight.loss_scales, straight.skipped_steps)


def test_label_smoothing_is_torchs_and_for_training_only(data):
    logits, labels = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 0, 1])
    by_hand = -(0.7 * logits.log_softmax(1)[torch.arange(6), labels] + 0.3 * logits.log_softmax(1).mean(1)).sum()
    loss, _ = Classification(4, 0.3).train_pass(lambda inputs: inputs, logits, labels)
    assert loss.item() == pytest.approx(by_hand.item(), rel=1e-6)
    torch.testing.assert_close(loss, F.cross_entropy(logits, labels, reduction="sum", label_smoothing=0.3))
    still = ("learning_rate.reference=0", "numerics.micro_batch=8", "numerics.threads=1")
    plain, smooth = train(data, None, *still), train(data, None, *still, "loss.label_smoothing=0.3")
    assert plain.train_loss != smooth.train_loss
    assert plain.test_loss == smooth.test_loss
