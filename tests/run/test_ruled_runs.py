"""Whole runs under rules that change Adam's constants: a loop of plain torch, any W, stops, branches, older states."""

import dataclasses
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
from batchscale.randomness import key, shuffled
from batchscale.run.run import Stopped
from batchscale.training import checkpoint as checkpoints
from batchscale.training.due import DUES

ADAM = "optimizer={name: adamw, beta1: 0.95, beta2: 0.98, epsilon: 1.0e-4, weight_decay: 0.1, scale_decay: true}"
LAMB = "optimizer={name: lamb, beta1: 0.95, beta2: 0.98, epsilon: 1.0e-4}"
ALWAYS = (
    ADAM, "model.ema_decay=0.9", "learning_rate.reference=0.01", "learning_rate.reference_minibatch=16",
    "numerics.micro_batch=4",
)  # fmt: skip
GROWN = "minibatch={workers: 4, per_worker: 4, growth: {kind: phases, phases: [{epoch: 1, workers: 8}]}}"
SIZES = [16] * 7 + [32] * 7
"""By hand: 7 x 16 = 112 >= 110, 112 + 7 x 32 = 336 >= 330."""
EXACT = "numerics.exact=true"
RULES = {
    "adam_sde": lambda kappa: (1 - kappa * 0.05, 1 - kappa * 0.02, 1e-4 / math.sqrt(kappa), math.sqrt(kappa)),
    "half_life": lambda kappa: (0.95, 0.98**kappa, 1e-4, 1.0),
}


def net():
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.Tanh(), nn.Linear(12, 4))


def plain_torch(dataset, rule):
    """(losses, weights, averaged weights) of GROWN, every number by hand."""
    model = net().double()
    pixels = dataset.train_images.double()
    pixels = (pixels - pixels.mean()) / pixels.std(correction=0)
    order = np.concatenate([shuffled(key(0, epoch, 0), np.arange(110), 110) for epoch in range(4)])
    names = [name for name, _ in model.named_parameters()]
    moments = {name: [torch.zeros_like(p), torch.zeros_like(p)] for name, p in model.named_parameters()}
    average = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    products, left, first, losses = [1.0, 1.0], 1.0, 0, []
    for size in SIZES:
        kappa, images = size // 16, order[first : first + size]
        b1, b2, epsilon, factor = RULES[rule](kappa)
        loss = F.cross_entropy(model(pixels[images]), dataset.train_labels[images])
        losses.append(float(loss.detach()))
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        at, end = first / 16, sum(SIZES) / 16
        share = 1.0 if at < 3 else 0.5 * (1 + math.cos(math.pi * (at - 3) / (end - 3)))
        lr = factor * 0.01 * share  # the warmup from the reference lr is flat: it is the target at kappa = 1
        products = [products[0] * b1, products[1] * b2]
        left *= 0.9**kappa
        for name, parameter, g in zip(names, model.parameters(), gradients, strict=True):
            m, v = moments[name]
            m.mul_(b1).add_((1 - b1) * g)
            v.mul_(b2).add_((1 - b2) * g * g)
            decay = 0.1 * kappa / factor if parameter.ndim > 1 or "bias" in name else 0.0
            step = m / (1 - products[0]) / ((v / (1 - products[1])).sqrt() + epsilon) + decay * parameter.detach()
            parameter.data.sub_(lr * step)
            average[name] += (1 - 0.9**kappa) / (1 - left) * (parameter.detach() - average[name])
        first += size
    return losses, model.state_dict(), average


@pytest.mark.parametrize("rule", RULES)
def test_a_run_that_grows_by_a_rule_equals_a_loop_of_plain_torch(data, tmp_path, rule):
    overrides = [*ALWAYS, GROWN, "precision=fp64", f"learning_rate.scaling={rule}"]
    batchscale.train({**RECIPE, "model": {"name": "own"}}, overrides, model=net(), data=data, out=tmp_path / "run",
                     quiet=True)  # fmt: skip
    losses, weights, average = plain_torch(data, rule)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["loss"] for line in lines] == pytest.approx(losses, rel=1e-9)
    for name, expected in (("weights", weights), ("weights_ema", average)):
        saved = load_file(tmp_path / "run" / f"{name}.safetensors")
        for tensor in expected:
            torch.testing.assert_close(saved[tensor], expected[tensor], rtol=1e-10, atol=1e-12)


def ruled(rule, optimizer=ADAM):
    return (*ALWAYS, optimizer, GROWN, f"learning_rate.scaling={rule}")


def trained(rank, dataset, overrides, out=None, **kwargs):
    result = batchscale.train(RECIPE, overrides, data=dataset, out=out, quiet=True, **kwargs)
    return result.weights_sha256, result.weights_ema_sha256, result.test_loss


@pytest.mark.parametrize("optimizer", [ADAM, LAMB], ids=["adamw", "lamb"])
def test_exact_runs_by_a_rule_are_the_same_for_every_w_also_stopped_and_resumed(data, tmp_path, monkeypatch, optimizer):
    overrides = (*ruled("adam_sde", optimizer), EXACT)
    alone = trained(0, data, overrides)
    for processes in (2, 3):
        assert in_processes(processes, trained, data, overrides) == [alone] * processes
    for stop in (5, 7, 9):  # before, at and after the change
        monkeypatch.setitem(DUES, "stop", stop_after(stop))
        with pytest.raises(Stopped, match=f"after step {stop};"):
            trained(0, data, overrides, tmp_path / "run", resume="auto")
        monkeypatch.undo()
    outcomes = in_processes(2, trained_again, data, overrides, tmp_path / "run")
    assert outcomes == [alone] * 2


MUON = "optimizer={name: muon, beta1: 0.95, beta2: 0.98, weight_decay: 0.1, scale_decay: true}"


def with_matrices(rank, dataset, overrides, out=None, resume="no"):
    recipe = {**RECIPE, "model": {"name": "own"}}
    result = batchscale.train(recipe, overrides, model=net(), data=dataset, out=out, quiet=True, resume=resume)
    return result.weights_sha256, result.weights_ema_sha256, result.test_loss


@pytest.mark.parametrize("optimizer", [MUON, "optimizer={name: larc, trust_coefficient: 0.1}"], ids=["muon", "larc"])
def test_exact_runs_of_muon_and_larc_are_the_same_for_every_w_and_resume(data, tmp_path, monkeypatch, optimizer):
    rule = "adam_sde" if "muon" in optimizer else "sqrt"
    overrides = (*ruled(rule, optimizer), EXACT)
    alone = with_matrices(0, data, overrides)
    monkeypatch.setitem(DUES, "stop", stop_after(8))
    with pytest.raises(Stopped):
        with_matrices(0, data, overrides, tmp_path / "run", "auto")
    monkeypatch.undo()
    assert in_processes(2, with_matrices, data, overrides, tmp_path / "run", "yes") == [alone] * 2
    assert in_processes(3, with_matrices, data, overrides) == [alone] * 3


def trained_again(rank, dataset, overrides, out):
    return trained(rank, dataset, overrides, out, resume="yes")


@pytest.mark.parametrize("rule", RULES)
def test_a_branch_by_a_rule_is_the_run_that_grows_there(data, tmp_path, rule):
    fixed = "minibatch={workers: 4, per_worker: 4}"
    mode = (EXACT, "learning_rate.decay.end=3")
    grown = trained(0, data, (*ruled(rule), *mode))
    kept = "execution.keep_checkpoints={epochs: [1]}"
    trained(0, data, (*ruled(rule), fixed, *mode, kept), tmp_path / "trunk")
    branch = (*ruled(rule), "minibatch={workers: 8, per_worker: 4}", *mode)
    assert trained(0, data, branch, branch=tmp_path / "trunk", at=7) == grown


@pytest.mark.parametrize("optimizer", [ADAM, LAMB], ids=["adamw", "lamb"])
def test_a_state_of_the_version_before_goes_on(data, tmp_path, monkeypatch, optimizer):
    """Betas that never changed and updates of averages that were counted; here at the reference minibatch."""
    fixed = (*ruled("half_life", optimizer), "minibatch={workers: 4, per_worker: 4}")
    straight = trained(0, data, fixed)
    monkeypatch.setitem(DUES, "stop", stop_after(5))
    with pytest.raises(Stopped):
        trained(0, data, fixed, tmp_path / "run")
    monkeypatch.undo()
    checkpoint = checkpoints.load(checkpoints.folders(tmp_path / "run")[-1])
    later = ("optimizer.betas", "optimizer.products")
    tensors = {name: tensor for name, tensor in checkpoint.tensors.items() if not name.startswith(later)}
    assert len(tensors) < len(checkpoint.tensors)
    tensors["optimizer.ema_steps"] = tensors["optimizer.ema_steps"].to(torch.int64)
    checkpoints.save(tmp_path / "run", dataclasses.replace(checkpoint, tensors=tensors))
    branch = (*fixed, "minibatch={workers: 8, per_worker: 4}")
    from_old = trained(0, data, branch, branch=tmp_path / "run", at=5)
    assert trained_again(0, data, fixed, tmp_path / "run") == straight
    monkeypatch.setitem(DUES, "stop", stop_after(5))
    with pytest.raises(Stopped):
        trained(0, data, fixed, tmp_path / "new")
    monkeypatch.undo()
    assert trained(0, data, branch, branch=tmp_path / "new", at=5) == from_old


def test_a_jump_of_the_betas_is_warned_of_and_an_impossible_one_refused_before_anything_is_written(data, tmp_path):
    nine = "optimizer={name: adamw, beta1: 0.9}"
    overrides = (*ruled("adam_sde", nine), "minibatch={workers: 16, per_worker: 4}")
    trained(0, data, overrides, tmp_path / "run")
    warnings = json.loads((tmp_path / "run" / "environment.json").read_text())["warnings"]
    assert any("kappa (1 - beta1) = 0.4, so beta1 is 0.6" in warning for warning in warnings)
    refused = (*overrides, "learning_rate.reference_minibatch=4")
    with pytest.raises(batchscale.errors.RecipeError, match=r"largest minibatch that works is 36, minibatch.workers=9"):
        trained(0, data, refused, tmp_path / "refused")
    assert not (tmp_path / "refused").exists()
