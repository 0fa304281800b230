"""Optimizers and schedules against torch's own, hand-computed steps, and each other."""

import itertools
import math

import pytest
import torch
from torch import nn

from batchscale.models import MODELS, named_model
from batchscale.update.lamb import LAMB
from batchscale.update.lars import LARS
from batchscale.update.schedule import DECAYS, WARMUPS, Decay, Schedule, scaled_lr
from batchscale.update.sgd import SGD, SGDLrInBuffer, decay_groups

FORMS = (SGD, SGDLrInBuffer)


def parameters(seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(s, generator=generator, dtype=dtype)) for s in [(3, 4), (4,), (5, 2, 3)]]


def train(optimizer, weights, lrs, seed=1):
    generator = torch.Generator().manual_seed(seed)
    for lr in lrs:
        for w in weights:
            w.grad = torch.randn(w.shape, generator=generator, dtype=w.dtype) + w.detach()
        optimizer.step(lr=lr)


CHANGING = [0.1, 0.2, 0.4, 0.4, 0.04, 0.01, 0.3]


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("decay", [0.0, 0.01])
@pytest.mark.parametrize("form", FORMS)
def test_both_forms_equal_torch_sgd_under_a_changing_lr(form, nesterov, decay):
    ours, theirs = parameters(), parameters()
    train(form([(ours, decay)], 0.9, nesterov), ours, CHANGING)
    reference = torch.optim.SGD(theirs, lr=0.1, momentum=0.9, nesterov=nesterov, weight_decay=decay, foreach=False)
    generator = torch.Generator().manual_seed(1)
    for lr in CHANGING:
        reference.param_groups[0]["lr"] = lr
        for w in theirs:
            w.grad = torch.randn(w.shape, generator=generator, dtype=w.dtype) + w.detach()
        reference.step()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("nesterov", [False, True])
def test_without_the_correction_the_two_forms_part_when_the_lr_changes(nesterov):
    reference, buffered = parameters(), parameters()
    train(SGD([(reference, 0.0)], 0.9, nesterov), reference, CHANGING)
    train(SGDLrInBuffer([(buffered, 0.0)], 0.9, nesterov, momentum_correction=False), buffered, CHANGING)
    assert max(float((a - b).detach().abs().max()) for a, b in zip(reference, buffered, strict=True)) > 1e-2
    reference, buffered = parameters(), parameters()
    train(SGD([(reference, 0.0)], 0.9, nesterov), reference, [0.1] * 5)
    train(SGDLrInBuffer([(buffered, 0.0)], 0.9, nesterov, momentum_correction=False), buffered, [0.1] * 5)
    for a, b in zip(reference, buffered, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("lrs", [[0.0, 0.0, 0.1, 0.2], [0.1, 0.0, 0.0, 0.3, 0.1], [0.0]])
def test_both_forms_are_equal_through_an_lr_of_zero(lrs):
    reference, buffered = parameters(), parameters()
    train(SGD([(reference, 0.01)], 0.9, True), reference, lrs)
    train(SGDLrInBuffer([(buffered, 0.01)], 0.9, True), buffered, lrs)
    for a, b in zip(reference, buffered, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_one_step_by_hand():
    for optimizer in FORMS:
        w = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
        sgd = optimizer([([w], 0.5)], 0.9, False)
        w.grad = torch.tensor([2.0], dtype=torch.float64)
        sgd.step(lr=0.1)  # g = 2 + 0.5 = 2.5; u = 2.5; w = 0.75
        assert w.item() == pytest.approx(0.75, abs=1e-15)
        w.grad = torch.tensor([1.0], dtype=torch.float64)
        sgd.step(lr=0.2)  # g = 1.375; u = 2.25 + 1.375 = 3.625; w = 0.75 - 0.725 = 0.025
        assert w.item() == pytest.approx(0.025, abs=1e-15)


@pytest.mark.parametrize("norms", [False, True])
@pytest.mark.parametrize("biases", [False, True])
def test_the_two_decay_switches(norms, biases):
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 2), nn.GroupNorm(1, 2))
    model[3].weight.requires_grad_(False)
    (decayed, decay), (spared, none) = decay_groups(model, 0.1, norms, biases)
    assert (decay, none) == (0.1, 0.0)
    names = {id(p): n for n, p in model.named_parameters()}
    expected = {"0.weight"} | ({"0.bias", "3.bias"} if biases else set())
    expected |= {"1.weight", "1.bias", "4.weight", "4.bias"} if norms else set()
    assert {names[id(p)] for p in decayed} == expected
    trainable = {n for n, p in model.named_parameters() if p.requires_grad}
    assert {names[id(p)] for p in spared} == trainable - expected


class OwnNorm(nn.Module):
    """A norm layer of another library: its scale is no torch class's."""

    def __init__(self, channels):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))


class Block(nn.Module):
    """A scale, a temperature and a bias of its own beside two layers."""

    def __init__(self):
        super().__init__()
        self.norm, self.linear = OwnNorm(4), nn.Linear(4, 4)
        self.gamma, self.q_bias = nn.Parameter(torch.ones(4)), nn.Parameter(torch.zeros(4))
        self.temperature, self.position = nn.Parameter(torch.tensor(1.0)), nn.Parameter(torch.zeros(1, 4))


class Attention(nn.Module):
    """Biases alone among its own parameters: they are no scale's."""

    def __init__(self):
        super().__init__()
        self.q_bias, self.v_bias = nn.Parameter(torch.zeros(4)), nn.Parameter(torch.zeros(4))


@pytest.mark.parametrize("norms", [False, True])
@pytest.mark.parametrize("biases", [False, True])
def test_scales_are_known_by_their_dimensions_whatever_their_class(norms, biases):
    model = nn.ModuleDict({"block": Block(), "attention": Attention(), "act": nn.PReLU()})
    (decayed, _), (spared, _) = decay_groups(model, 0.1, norms, biases)
    names = {id(p): n for n, p in model.named_parameters()}
    expected = {"block.linear.weight", "block.position"}
    if biases:
        expected |= {"block.linear.bias", "block.q_bias", "attention.q_bias", "attention.v_bias"}
    if norms:
        expected |= {"block.norm.weight", "block.norm.bias", "block.gamma", "block.temperature", "act.weight"}
    assert {names[id(p)] for p in decayed} == expected
    assert {names[id(p)] for p in spared} == set(names.values()) - expected


@pytest.mark.parametrize("kind", [LARS, LAMB])
def test_scales_of_no_known_class_take_neither_decay_nor_a_trust_ratio(kind):
    model, plain = OwnNorm(3), nn.Parameter(torch.full((3,), 2.0))
    with torch.no_grad():
        model.weight.fill_(2.0)
    model.weight.grad, plain.grad = torch.full((3,), 0.5), torch.full((3,), 0.5)
    kind(decay_groups(model, 0.1, decay_norms=False, decay_biases=False)).step(lr=0.1)
    kind([([], 0.1), ([plain], 0.0)]).step(lr=0.1)
    assert torch.equal(model.weight, plain)


def by_class_and_name(model, norms, biases):
    """The groups of before, when scales were known by torch's classes alone."""
    known = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
    groups = ([], [])
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            norm, bias = isinstance(module, known), name.endswith("bias") or name.startswith("bias_")
            groups[(norm and not norms) or (not norm and bias and not biases)].append(id(parameter))
    return list(groups)


OURS = {"keskar_f1": (1, 28, 28), "cnn": (1, 28, 28), "simple_cnn": (1, 28, 28)}
NETS = [*sorted(MODELS), "torchvision/densenet121", "torchvision/mobilenet_v3_small", "timm/vit_tiny_patch16_224"]


@pytest.mark.parametrize("name", NETS)
def test_the_groups_of_shipped_nets_are_those_of_before(name):
    with torch.device("meta"):
        model = named_model(name, OURS.get(name, (3, 224, 224) if "/" in name else (3, 32, 32)), 10)
    for norms, biases in itertools.product((False, True), repeat=2):
        groups = decay_groups(model, 0.1, norms, biases)
        assert [[id(p) for p in group] for group, _ in groups] == by_class_and_name(model, norms, biases)


def test_scaling_rules():
    assert scaled_lr(0.1, 256, 8192, "linear") == pytest.approx(3.2)
    assert scaled_lr(0.1, 256, 8192, "sqrt") == pytest.approx(0.1 * math.sqrt(32))
    assert scaled_lr(0.1, 256, 8192, "none") == 0.1


def test_gradual_warmup_rises_by_a_constant_amount_from_the_reference_to_the_target():
    schedule = Schedule(0.1, 3.2, 1000, "gradual", 100)
    lrs = [schedule(t) for t in range(101)]
    assert lrs[0] == pytest.approx(0.1)
    assert lrs[100] == pytest.approx(3.2)
    for a, b in itertools.pairwise(lrs):
        assert b - a == pytest.approx(0.031)


def test_constant_warmup_stays_at_the_reference_then_jumps():
    schedule = Schedule(0.1, 3.2, 1000, "constant", 100)
    assert {schedule(t) for t in range(100)} == {0.1}
    assert schedule(100) == 3.2


def test_no_warmup_ignores_its_duration():
    assert Schedule(0.1, 3.2, 1000, "none", 100)(0) == 3.2


def test_step_decay_of_the_paper():
    steps_per_epoch = 5004
    decay = Decay("step", tuple(e * steps_per_epoch for e in (30, 60, 80)), 0.1)
    schedule = Schedule(0.1, 0.1, 90 * steps_per_epoch, "none", 0, decay)
    rates = [schedule(int(e * steps_per_epoch)) for e in (0, 29.9, 30, 59.9, 60, 80, 89.9)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 1e-4, 1e-4])


@pytest.mark.parametrize(("kind", "half"), [("cosine", 0.5), ("polynomial", 0.25)])
def test_smooth_decays_run_from_the_warmups_end_to_the_runs_end(kind, half):
    schedule = Schedule(0.1, 0.8, 1100, "gradual", 100, Decay(kind, power=2))
    assert schedule(100) == pytest.approx(0.8)
    assert schedule(600) == pytest.approx(0.8 * half)
    assert schedule(1100) == pytest.approx(0, abs=1e-12)
    floor = Schedule(0.1, 0.8, 1100, "gradual", 100, Decay(kind, final=0.1))
    assert floor(1100) == pytest.approx(0.08)


@pytest.mark.parametrize("warmup", sorted(WARMUPS))
@pytest.mark.parametrize("decay", sorted(DECAYS))
def test_every_combination_is_finite_and_never_above_the_target(warmup, decay):
    schedule = Schedule(0.1, 0.8, 50, warmup, 7.5, Decay(decay, (20.0, 30.0)))
    lrs = [schedule(t) for t in range(50)]
    assert all(0 <= lr <= 0.8 + 1e-12 for lr in lrs)
    assert max(lrs) > 0.7


def test_both_forms_are_equal_for_a_parameter_that_some_steps_skip():
    weights = [nn.Parameter(torch.ones(2, dtype=torch.float64)) for _ in range(2)]
    forms = (SGD([([weights[0]], 0.0)], 0.9, True), SGDLrInBuffer([([weights[1]], 0.0)], 0.9, True))
    for weight, optimizer in zip(weights, forms, strict=True):
        for step, lr in enumerate([0.1, 0.2, 0.4, 0.1]):
            weight.grad = None if step == 1 else torch.tensor([1.0, -2.0], dtype=torch.float64)
            optimizer.step(lr=lr)
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-12, atol=1e-12)
