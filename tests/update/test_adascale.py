"""AdaScale: its gain by the paper's formulas, and whole runs against a loop of plain torch, at any W, stopped."""

import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from support.dues import stop_after
from support.runs import RECIPE
from support.runs import data as data
from support.worlds import in_processes
from torch import nn

import batchscale
from batchscale.errors import CheckpointError, RecipeError
from batchscale.randomness import key, shuffled
from batchscale.run.run import Stopped
from batchscale.training.due import DUES
from batchscale.update.adascale import AdaScale

ALWAYS = (
    "learning_rate={reference: 0.05, reference_minibatch: 16, scaling: adascale, decay: {kind: step, epochs: [1]}}",
    "numerics.micro_batch=8",
)
EXACT = "numerics.exact=true"


def net():
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.Tanh(), nn.Linear(12, 4))


@pytest.mark.parametrize(
    ("noise", "gain"), [((0.0, 5.0), 4.0), ((-1.0, 5.0), 4.0), ((2.0, 0.0), 1.0), ((1.0, 16.0), 1.6)]
)
def test_the_gain_is_that_of_linear_scaling_for_noise_alone_and_none_without_noise(noise, gain):
    """S = 4; with |G|^2 = sigma^2 = 1: r = 2 / (1/4 + 1)."""
    scale = AdaScale(lambda step: 1.0, 16)
    scale.hear(noise, 64)
    assert scale(0) == pytest.approx(gain, rel=1e-5)


def test_estimates_are_means_at_first_then_moving_averages_and_the_schedule_goes_by_steps_that_gains_are_worth():
    generator = np.random.default_rng(0)
    scale, asked = AdaScale(lambda step: asked.append(step) or 0.5, 10), []
    past, average, tau, share = [], None, 0.0, 0.2  # S = 200: 1 / (1 - theta) = 5 steps
    for step in range(12):
        noise = (float(generator.normal(1, 1)), float(generator.uniform(10, 30)))
        past.append(np.array([max(noise[1] / 10, 1e-6), max(noise[0], 0.0)]))
        average = np.mean(past, axis=0) if len(past) < 5 else (1 - share) * average + share * past[-1]
        gain = average.sum() / (average[0] / 200 + average[1])
        scale.hear(noise, 2000)
        assert scale(step) == pytest.approx(gain * 0.5, rel=1e-12)
        assert asked[-1] == math.floor(tau)
        tau += gain
        assert scale.scale_invariant_steps == pytest.approx(tau, rel=1e-12)


def test_a_step_that_says_nothing_keeps_the_gain_and_is_worth_it():
    scale = AdaScale(float, 16)
    scale.hear(None, 64)
    assert (scale(0), scale.scale_invariant_steps) == (0.0, 1.0)
    scale.hear((0.0, 5.0), 64)
    scale.hear(None, 64)
    assert (scale(2), scale.scale_invariant_steps) == (pytest.approx(4 * 5), pytest.approx(9.0))


def test_below_the_reference_minibatch_the_gain_is_below_one_and_stays_so_over_a_step_that_says_nothing():
    """S = 1/2, |G|^2 = sigma^2 = 1: r = 2 / (2 + 1)."""
    scale = AdaScale(lambda step: 1.0, 16)
    for noise in ((1.0, 16.0), None):
        scale.hear(noise, 8)
        assert scale(0) == pytest.approx(2 / 3)


def test_a_step_without_noise_counts_with_the_least_variance():
    """S = 4: means of (-16 / 16 -> 1e-6, 3) and (1, 1)."""
    scale = AdaScale(lambda step: 1.0, 16)
    scale.hear((3.0, -16.0), 64)
    scale.hear((1.0, 16.0), 64)
    assert scale(1) == pytest.approx((0.5 + 2) / (0.5 / 4 + 2), rel=1e-5)


def plain_torch(dataset):
    """(lrs, weights) of 4 x 8 images a step, every number by hand."""
    model = net().double()
    pixels = dataset.train_images.double()
    pixels = (pixels - pixels.mean()) / pixels.std(correction=0)
    order = np.concatenate([shuffled(key(0, epoch, 0), np.arange(110), 110) for epoch in range(5)])
    sgd = torch.optim.SGD(model.parameters(), lr=1, momentum=0.9, nesterov=True, weight_decay=1e-4)
    past, lrs, tau = [], [], 0.0
    for step in range(11):
        parts = []
        for worker in range(4):
            part = order[32 * step + 8 * worker : 32 * step + 8 * worker + 8]
            loss = F.cross_entropy(model(pixels[part]), dataset.train_labels[part])
            parts.append(torch.autograd.grad(loss, list(model.parameters())))
        squares = [sum(float((g**2).sum()) for g in part) for part in parts]
        mean = [sum(gs) / 4 for gs in zip(*parts, strict=True)]
        whole = sum(float((g**2).sum()) for g in mean)
        trace = (8 * sum(squares) - 32 * whole) / 3
        square = whole - trace / 32 * (1 - 32 / 110)
        past.append((max(trace / 16, 1e-6), max(square, 0.0)))
        variance, square = np.mean(past, axis=0)
        gain = (variance + square) / (variance / 2 + square)
        lrs.append(gain * 0.05 * (0.1 if math.floor(tau) * 16 >= 110 else 1.0))
        tau += gain
        for parameter, g in zip(model.parameters(), mean, strict=True):
            parameter.grad = g
        sgd.param_groups[0]["lr"] = lrs[-1]
        sgd.step()
    return lrs, tau, model.state_dict()


def train(data, out, *overrides, **kwargs):
    return batchscale.train(RECIPE, [*ALWAYS, *overrides], data=data, out=out, model=net(), quiet=True, **kwargs)


def test_a_run_equals_a_loop_of_plain_torch(data, tmp_path):
    lrs, tau, expected = plain_torch(data)
    result = train(data, tmp_path / "run", "precision=fp64")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["lr"] for line in lines] == pytest.approx(lrs, rel=1e-9)
    assert min(lrs) < 0.012 < 0.05 < max(lrs)  # the decay came, by steps that are worth more than one
    assert result.scale_invariant_steps == pytest.approx(tau, abs=1e-3)
    weights = load_file(tmp_path / "run" / "weights.safetensors")
    for name, tensor in expected.items():
        torch.testing.assert_close(weights[name], tensor, rtol=1e-9, atol=1e-11)


def ending(rank, data, out, overrides, kwargs):
    result = train(data, out, *overrides, **kwargs)
    return result.weights_sha256, result.test_loss, result.scale_invariant_steps


def test_exact_runs_end_with_the_same_bits_for_every_number_of_processes_and_over_a_stop(data, tmp_path, monkeypatch):
    growth = "minibatch={workers: 3, per_worker: 8, growth: {kind: phases, phases: [{epoch: 1, workers: 6}]}}"
    overrides = (EXACT, growth)
    alone = ending(0, data, tmp_path / "alone", (*overrides, "execution.keep_checkpoints={steps: [3]}"), {})
    for processes in (2, 3):
        assert in_processes(processes, ending, data, None, overrides, {}) == [alone] * processes
    monkeypatch.setitem(DUES, "stop", stop_after(4))
    with pytest.raises(Stopped):
        train(data, tmp_path / "run", *overrides)
    monkeypatch.undo()
    assert in_processes(2, ending, data, tmp_path / "run", overrides, {"resume": "yes"}) == [alone] * 2
    branch = ending(0, data, None, overrides, {"branch": tmp_path / "alone", "at": 3})
    assert branch == alone
    with pytest.raises(CheckpointError, match=r"scaling=linear, and the trunk has adascale: .*use the trunk's rule"):
        train(data, None, *overrides, "learning_rate.scaling=linear", branch=tmp_path / "alone", at=3)


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (("minibatch.workers=1",), r"learning_rate.scaling=adascale with minibatch.workers=1: .*minibatch.workers=2"),
        (
            ("batch_norm.span=2", "numerics.micro_batch=auto"),
            r"learning_rate.scaling=adascale with batch_norm.span=2: .*batch_norm.span=1",
        ),
        (("execution.noise_scale_steps=5",), r"noise_scale_steps=5 with learning_rate.scaling=adascale: .*leave"),
        (("minibatch.growth={kind: noise_scale, largest: 64}",), r"measure_steps=10 with learning_rate.scaling=adasc"),
    ],
)
def test_bad_input_is_one_line(data, overrides, line):
    with pytest.raises(RecipeError, match=line) as error:
        train(data, None, *overrides)
    assert "\n" not in str(error.value)
