"""An update that the device decides, and the host learns of one step later: the same run as where the host asks.

On a CPU nothing is late, so the late gate is handed in. Floats of 32 bits, weights and what is as large, stand for what
lies on the device; counters and the like, of other types, for what the host holds.
"""

import dataclasses
import json

import pytest
import torch
from support.runs import RECIPE
from support.runs import data as data
from support.worlds import in_processes
from torch import nn

import batchscale
from batchscale.build import assembly
from batchscale.recipe.optimizer import OPTIMIZERS
from batchscale.training.gate import AtOnce, Late
from batchscale.training.mail import Mail
from batchscale.update.kept import Kept
from batchscale.update.larc import LARC
from batchscale.update.lars import LARS

FIXED = ("numerics.micro_batch=8", "numerics.threads=1", "execution.log_steps=3")


def late_gate(world, aggregator, changed, asks):
    changed = dataclasses.replace(changed, on_device=lambda tensor: tensor.dtype == torch.float32)
    return Late(aggregator, changed, Mail(world))


@pytest.fixture
def late(monkeypatch):
    """Let the runs from here on be late."""
    return lambda: monkeypatch.setattr(assembly, "gate_of", late_gate)


def train(data, out, *overrides, **kwargs):
    return batchscale.train(RECIPE, [*FIXED, *overrides], data=data, out=out, quiet=True, **kwargs)


def outcome(result, out):
    """All that a run leaves but its times."""
    timed = ("images_per_second", "phase_seconds")
    lines = [
        {key: value for key, value in json.loads(line).items() if key not in timed}
        for name in ("metrics.jsonl", "evaluations.jsonl")
        for line in (out / name).read_text().splitlines()
    ]
    told = ("status", "steps", "diverged_at_step", "weights_sha256", "train_loss", "skipped_steps", "loss_scales")
    return {name: getattr(result, name, None) for name in told} | {"lines": lines}


class Overflowing(nn.Module):
    """A net whose forward pass overflows in float16 on the one white image, before batch norm."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.convolution, self.norm, self.hidden = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Linear(144, 8)
        self.linear = nn.Linear(8, 4)

    def forward(self, x):
        white = x.amin((1, 2, 3), keepdim=True) > 2  # as normalised; no other image is white all over
        x = self.norm(self.convolution(torch.where(white, x * 1e7, x))).relu()
        return self.linear(self.hidden(x.flatten(1)).relu())


@pytest.fixture(scope="module")
def one_white(data):
    images = data.train_images.clone()
    images[0] = 255
    return dataclasses.replace(data, train_images=images)


FORMS = [
    *((name, ()) for name in OPTIMIZERS),
    ("sgd", ("numerics.exact=true", "execution.noise_scale_steps=1")),
    ("lars", ("numerics.exact=true",)),
    ("adamw", ("model.ema_decay=0.9", "optimizer.clip_norm=0.5")),
    ("sgd", ("execution.noise_scale_steps=1", "batch_norm.running=none")),
]


@pytest.mark.parametrize(("name", "overrides"), FORMS)
def test_an_update_that_is_skipped_is_taken_back(one_white, tmp_path, late, name, overrides):
    """The steps of the white image, and the one launched behind each: every number of the run, and every bit."""
    outcomes = []
    for out in (tmp_path / "asked", tmp_path / "late"):
        how = ("precision=fp16", "epochs=2", f"optimizer={{name: {name}}}", *overrides)
        outcomes.append(outcome(train(one_white, out, *how, model=Overflowing()), out))
        late()
    assert outcomes[0] == outcomes[1]
    assert (outcomes[1]["status"], outcomes[1]["skipped_steps"]) == ("done", 2)


class Bursting(nn.Module):
    """Its loss is not finite from a step on."""

    def __init__(self, step):
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.step, self.passes = nn.Linear(64, 4), step, 0

    def forward(self, images):
        self.passes += self.training
        outputs = self.linear(images.flatten(1))
        return outputs * float("nan") if self.passes > 4 * self.step + 1 else outputs  # 4 passes a step, and the probe


@pytest.mark.parametrize("step", [4, 5])
def test_a_run_that_diverges_ends_with_the_state_before_it(data, tmp_path, late, step):
    """Before a line is due (step 6), so that the next step has been launched; and just there."""
    ends = []
    for out in (tmp_path / "asked", tmp_path / "late"):
        model = Bursting(step)
        ends.append(outcome(train(data, out, "optimizer={name: rmsprop_warmup}", model=model), out))
        ends[-1]["weights"] = model.linear.weight.tolist()
        late()
    assert ends[0] == ends[1]
    assert (ends[1]["status"], ends[1]["diverged_at_step"]) == ("diverged", step)


class Dropping(nn.Module):
    """Every other worker or so passes a layer and its batch norm over; the last step's do so whatever comes."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.norm = nn.Linear(64, 4), nn.Linear(64, 4), nn.BatchNorm1d(4)

    def forward(self, images):
        pixels = images.flatten(1)
        outputs = self.first(pixels)
        return outputs if self.training and torch.rand(()) < 0.8 else outputs + self.norm(self.second(pixels))


@pytest.mark.parametrize("exact", ["false", "true"])
def test_layers_that_come_and_go_surprise_the_host_and_change_nothing(data, tmp_path, late, monkeypatch, exact):
    """A step is run again where its parameters were others than expected; then the host asks."""
    outcomes, gates = [], []
    build = assembly.TrainingStep
    monkeypatch.setattr(assembly, "TrainingStep", lambda *parts: gates.append(build(*parts)) or gates[-1])
    for out in (tmp_path / "asked", tmp_path / "late"):
        outcomes.append(outcome(train(data, out, f"numerics.exact={exact}", model=Dropping()), out))
        late()
    assert outcomes[0] == outcomes[1]
    assert isinstance(gates[1].gate, AtOnce)


def skipping(rank, data, is_late):
    with pytest.MonkeyPatch.context() as patch:
        if is_late:
            patch.setattr(assembly, "gate_of", late_gate)
        how = ("precision=fp16", "numerics.exact=true", "epochs=2", "optimizer={name: lamb}")
        result = train(data, None, *how, model=Overflowing())
    return result.weights_sha256, result.skipped_steps, result.loss_scales


def test_all_processes_take_back_the_same_steps(one_white):
    asked = skipping(0, one_white, False)
    assert in_processes(2, skipping, one_white, True) == [asked, asked]


def test_tensors_go_back_to_their_copies_only_where_the_flag_says_so():
    tensors = [torch.randn(3, 4), torch.tensor(2), torch.randn(5), torch.randn(2, 3, 4, 4), torch.zeros(0)]
    tensors[3] = tensors[3].to(memory_format=torch.channels_last)
    before = [tensor.clone() for tensor in tensors]
    for flag in (False, True):
        kept = Kept(tensors)
        for tensor in tensors:
            tensor.fill_(7) if tensor.dtype == torch.int64 else tensor.fill_(float("nan"))
        kept.put_back(torch.tensor(flag))
        assert all(torch.equal(a, b) for a, b in zip(tensors, before, strict=True)) == flag
        for tensor, copy in zip(tensors, before, strict=True):
            tensor.copy_(copy)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("kind", [LARS, LARC])
def test_rates_that_stay_on_the_device_make_the_same_update(monkeypatch, kind, momentum):
    """In float64, where only rounding may differ from the rates that are numbers of the host."""
    torch.manual_seed(0)
    shapes = [(3, 4), (5,), (2, 2, 3)]
    starts, gradients = ([torch.randn(shape, dtype=torch.float64) for shape in shapes] for _ in range(2))
    gradients[1].zero_()  # its norm is 0: the plain rate
    ends = []
    for unasked in (False, True):
        weights = [nn.Parameter(start.clone()) for start in starts]
        optimizer = kind([(weights, 0.1)], momentum=momentum, trust_coefficient=0.05)
        if unasked:  # as where the factors lie on a device
            monkeypatch.setattr(kind, "_update_each", kind._update_unasked)
        for lr in (0.5, 0.0, 0.25):
            for weight, gradient in zip(weights, gradients, strict=True):
                weight.grad = gradient.clone()
            optimizer.step(lr=lr)
        ends.append([weight.detach() for weight in weights])
    for asked, unasked in zip(*ends, strict=True):
        torch.testing.assert_close(asked, unasked, rtol=1e-12, atol=1e-14)
