"""Every optimizer of the table: by hand, against other implementations, and what all of them promise."""

import inspect
import math

import pytest
import torch
from torch import nn

from batchscale.recipe.optimizer import OPTIMIZER_ENTRIES
from batchscale.update.adamw import AdamW
from batchscale.update.clip import ClippedGradient
from batchscale.update.lamb import LAMB
from batchscale.update.lars import LARS
from batchscale.update.optimizers import OPTIMIZERS
from batchscale.update.rmsprop_warmup import RMSpropWarmup, sgd_share
from batchscale.update.sgd import SGD

LRS = [0.1, 0.2, 0.4, 0.4, 0.04, 0.0, 0.3]
NEEDED = {
    "sgd": {"momentum": 0.9},
    "sgd_lr_in_buffer": {"momentum": 0.9},
    "rmsprop_warmup": {"epoch_at": float, "center_epochs": 3.0, "period_epochs": 4.0},
}


def make(name, groups):
    return OPTIMIZERS[name](groups, **NEEDED.get(name, {}))


def parameters(seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(s, generator=generator, dtype=dtype)) for s in [(3, 4), (4,), (5, 2, 3)]]


def draw_gradients(weights, generator):
    for w in weights:
        w.grad = torch.randn(w.shape, generator=generator, dtype=torch.float64).to(w.dtype) + w.detach()


def train(optimizer, weights, lrs, seed=1):
    generator = torch.Generator().manual_seed(seed)
    for lr in lrs:
        draw_gradients(weights, generator)
        optimizer.step(lr=lr)


def train_torch(optimizer, weights, lrs, seed=1):
    generator = torch.Generator().manual_seed(seed)
    for lr in lrs:
        for group in optimizer.param_groups:
            group["lr"] = lr
        draw_gradients(weights, generator)
        optimizer.step()


def assert_close(ours, theirs, tolerance=1e-12):
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


every = pytest.mark.parametrize("name", sorted(OPTIMIZERS))


@every
def test_the_recipes_options_are_the_constructors(name):
    options = set(inspect.signature(OPTIMIZERS[name]).parameters) - {"groups", "epoch_at", "matrices"}
    planned = {"decay_norms", "decay_biases", "momentum_changes", "scale_decay"}
    assert options == set(OPTIMIZER_ENTRIES.options_of(name)) - planned


@every
def test_a_copied_state_goes_on_as_if_nothing_had_happened(name):
    straight, broken = parameters(), parameters()
    train(make(name, [(straight[:2], 0.01), (straight[2:], 0.0)]), straight, LRS)
    first = make(name, [(broken[:2], 0.01), (broken[2:], 0.0)])
    generator = torch.Generator().manual_seed(1)
    for step, lr in enumerate(LRS):
        if step == 3:
            second = make(name, [(broken[:2], 0.01), (broken[2:], 0.0)])
            assert second.state().keys() == first.state().keys()
            for key, tensor in second.state().items():
                tensor.copy_(first.state()[key])
            first = second
        draw_gradients(broken, generator)
        first.step(lr=lr)
    for a, b in zip(straight, broken, strict=True):
        assert torch.equal(a, b)


@every
def test_an_lr_of_zero_changes_no_weight(name):
    weights = parameters()
    starts = [w.detach().clone() for w in weights]
    train(make(name, [(weights[:2], 0.1), (weights[2:], 0.0)]), weights, [0.0])
    for a, b in zip(weights, starts, strict=True):
        assert torch.equal(a, b)


@every
def test_a_parameter_without_gradient_is_left_alone_and_its_state_too(name):
    used, unused, fresh = (nn.Parameter(torch.ones(2)) for _ in range(3))
    late, alone = make(name, [([], 0.0), ([used, unused], 0.1)]), make(name, [([], 0.0), ([fresh], 0.1)])
    used.grad = torch.ones(2)
    late.step(lr=0.1)
    assert torch.equal(unused, torch.ones(2))
    assert not torch.equal(used, torch.ones(2))
    unused.grad, fresh.grad, used.grad = torch.ones(2), torch.ones(2), None
    if name == "rmsprop_warmup":
        alone.state()["steps"].fill_(1)  # its transition goes by the run's steps
    late.step(lr=0.1)  # the unused one's first step is a first step
    alone.step(lr=0.1)
    assert torch.equal(unused, fresh)


@every
def test_gradients_are_only_read(name):
    weights = parameters()
    optimizer = make(name, [(weights, 0.1)])
    draw_gradients(weights, torch.Generator().manual_seed(1))
    gradients = [w.grad.clone() for w in weights]
    optimizer.step(lr=0.1)
    for w, g in zip(weights, gradients, strict=True):
        assert torch.equal(w.grad, g)


@every
def test_empty_groups_and_single_precision_will_do(name):
    ours, theirs = parameters(dtype=torch.float32), parameters()
    for a, b in zip(ours, theirs, strict=True):
        b.data.copy_(a.data)
    train(make(name, [(ours, 0.01), ([], 0.0)]), ours, LRS[:5])
    train(make(name, [(theirs, 0.01)]), theirs, LRS[:5])
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_lars_is_its_formula_at_any_momentum(momentum):
    weights, trust, decay, epsilon = parameters(), 0.02, 0.1, 1e-3
    lars = LARS([(weights[:2], decay), (weights[2:], 0.0)], momentum, trust, epsilon)
    expected, moving = [w.detach().clone() for w in weights], [torch.zeros_like(w) for w in weights]
    generator = torch.Generator().manual_seed(1)
    for lr in LRS:
        draw_gradients(weights, generator)
        lars.step(lr=lr)
        for i, (w, v, p) in enumerate(zip(expected, moving, weights, strict=True)):
            local = trust * w.norm() / (p.grad.norm() + decay * w.norm() + epsilon) if i < 2 else 1.0
            v.mul_(momentum).add_(lr * local * (p.grad + (decay if i < 2 else 0.0) * w))
            w.sub_(v)
    assert_close(weights, expected)


def test_two_lars_steps_by_hand():
    w = nn.Parameter(torch.tensor([3.0, 4.0], dtype=torch.float64))
    bias = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    lars = LARS([([w], 0.1), ([bias], 0.0)], momentum=0.5, trust_coefficient=0.01, epsilon=0.5)
    w.grad, bias.grad = torch.tensor([0.0, 2.0], dtype=torch.float64), torch.tensor([2.0], dtype=torch.float64)
    lars.step(lr=2.0)  # lambda = 0.01 * 5 / (2 + 0.1 * 5 + 0.5) = 1/60; v = 2/60 * (0.3, 2.4) = (0.01, 0.08)
    assert w.tolist() == pytest.approx([2.99, 3.92], abs=1e-14)
    assert bias.item() == pytest.approx(1 - 4, abs=1e-14)
    norm = math.hypot(2.99, 3.92)
    rate = 1.0 * 0.01 * norm / (2 + 0.1 * norm + 0.5)
    lars.step(lr=1.0)
    expected = [2.99 - (0.5 * 0.01 + rate * 0.299), 3.92 - (0.5 * 0.08 + rate * (2 + 0.392))]
    assert w.tolist() == pytest.approx(expected, abs=1e-14)
    assert bias.item() == pytest.approx(-3 - (0.5 * 4 + 2), abs=1e-14)


@pytest.mark.parametrize("kind", [LARS, LAMB])
@pytest.mark.parametrize(("weight", "gradient"), [(0.0, 1.0), (1.0, 0.0)])
def test_without_two_positive_norms_the_ratio_is_one(kind, weight, gradient):
    adapted, plain = (nn.Parameter(torch.full((2,), weight, dtype=torch.float64)) for _ in range(2))
    for w in (adapted, plain):
        w.grad = torch.full((2,), gradient, dtype=torch.float64)
    kind([([adapted], 0.0), ([plain], 0.0)]).step(lr=0.1)
    assert torch.equal(adapted, plain)


def test_two_lamb_steps_by_hand():
    w = nn.Parameter(torch.tensor([3.0, 4.0], dtype=torch.float64))
    bias = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    lamb = LAMB([([w], 0.1), ([bias], 0.0)], beta1=0.5, beta2=0.75, epsilon=1e-3)
    w.grad, bias.grad = torch.tensor([1.0, -2.0], dtype=torch.float64), torch.tensor([2.0], dtype=torch.float64)
    lamb.step(lr=0.5)  # the corrected moments are g and g^2
    r = [1 / 1.001 + 0.3, -2 / 2.001 + 0.4]
    first = [x - 0.5 * 5 / math.hypot(*r) * y for x, y in zip((3.0, 4.0), r, strict=True)]
    assert w.tolist() == pytest.approx(first, abs=1e-14)
    assert bias.item() == pytest.approx(1 - 0.5 * 2 / 2.001, abs=1e-14)
    w.grad, bias.grad = torch.tensor([3.0, 0.0], dtype=torch.float64), None
    lamb.step(lr=0.5)  # m = 0.5 m + 0.5 g over 1 - 0.5^2; v = 0.75 v + 0.25 g^2 over 1 - 0.75^2
    m = [(0.5 * 0.5 + 0.5 * 3) / 0.75, (0.5 * -1.0) / 0.75]
    v = [(0.75 * 0.25 + 0.25 * 9) / 0.4375, (0.75 * 1.0) / 0.4375]
    r = [a / (math.sqrt(b) + 1e-3) + 0.1 * x for a, b, x in zip(m, v, first, strict=True)]
    ratio = math.hypot(*first) / math.hypot(*r)
    assert w.tolist() == pytest.approx([x - 0.5 * ratio * y for x, y in zip(first, r, strict=True)], abs=1e-14)


@pytest.mark.parametrize("decay", [0.01, 0.3])
def test_lars_equals_timms_at_a_steady_lr(decay):
    theirs_of = pytest.importorskip("timm.optim.lars").Lars
    ours, theirs = parameters(), parameters()
    train(LARS([(ours[:2], decay), (ours[2:], 0.0)], 0.9, 0.02, 1e-8), ours, [0.3] * 6)
    groups = [{"params": theirs[:2], "weight_decay": decay}, {"params": theirs[2:], "weight_decay": 0.0}]
    train_torch(theirs_of(groups, lr=0.3, momentum=0.9, trust_coeff=0.02, foreach=False), theirs, [0.3] * 6)
    assert_close(ours, theirs)


@pytest.mark.parametrize("decay", [0.01, 0.3])
def test_lamb_equals_timms_under_a_changing_lr(decay):
    theirs_of = pytest.importorskip("timm.optim.lamb").Lamb
    ours, theirs = parameters(), parameters()
    train(LAMB([(ours[:2], decay), (ours[2:], 0.0)], 0.8, 0.95, 1e-6), ours, LRS)
    groups = [{"params": theirs[:2], "weight_decay": decay}, {"params": theirs[2:], "weight_decay": 0.0}]
    lamb = theirs_of(groups, betas=(0.8, 0.95), eps=1e-6, max_grad_norm=None, foreach=False)
    train_torch(lamb, theirs, LRS)
    assert_close(ours, theirs)


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_adamw_equals_torchs_plain_one(decay):
    ours, theirs = parameters(), parameters()
    train(AdamW([(ours, decay)], 0.8, 0.95, 1e-6), ours, LRS)
    adamw = torch.optim.AdamW(theirs, betas=(0.8, 0.95), eps=1e-6, weight_decay=decay, foreach=False, fused=False)
    train_torch(adamw, theirs, LRS)
    assert_close(ours, theirs)


def test_one_adamw_step_by_hand():
    w = nn.Parameter(torch.tensor([3.0], dtype=torch.float64))
    w.grad = torch.tensor([-2.0], dtype=torch.float64)
    AdamW([([w], 0.1)], epsilon=1e-3).step(lr=0.5)
    assert w.item() == pytest.approx(3 * 0.95 + 0.5 * 2 / 2.001, abs=1e-14)


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_rmsprop_warmup_is_torchs_rmsprop_long_before_its_center_and_sgd_long_after(decay):
    for center, kind, options in (
        (1e6, torch.optim.RMSprop, {"alpha": 0.95, "eps": 1e-6}),
        (0.0, torch.optim.SGD, {}),
    ):
        ours, theirs = parameters(), parameters()
        warmup = RMSpropWarmup([(ours, decay)], float, 0.9, 0.95, 0.03, center, 1e-3, 1e-6)
        if center == 0:
            warmup.state()["steps"].fill_(1)
        lr = 0.03 if center else 0.2
        train(warmup, ours, [0.2] * 6)
        train_torch(kind(theirs, lr=lr, momentum=0.9, weight_decay=decay, foreach=False, **options), theirs, [lr] * 6)
        assert_close(ours, theirs)


def test_one_rmsprop_warmup_step_by_hand():
    w = nn.Parameter(torch.tensor([3.0], dtype=torch.float64))
    warmup = RMSpropWarmup(
        [([w], 0.5)], lambda steps: steps / 2, 0.9, 0.75, 0.1, center_epochs=1.0, period_epochs=4.0, epsilon=0.25
    )
    w.grad = torch.tensor([0.5], dtype=torch.float64)
    warmup.step(lr=0.2)  # g = 0.5 + 1.5 = 2; m = 0.25 * 4 = 1; a = exp(-1/2) / 2 at epoch 0
    a = 0.5 * math.exp(-0.5)
    v = -(a + (1 - a) * (0.1 / 0.2) / 1.25) * 2
    assert w.item() == pytest.approx(3 + 0.2 * v, abs=1e-14)
    assert warmup.state()["velocity.0"].item() == pytest.approx(v, abs=1e-14)


def test_the_transition_is_a_smooth_elu_from_rmsprop_to_sgd():
    assert [sgd_share(e, 10, 5) for e in (10, 11.25, 12.5, 90)] == pytest.approx([0.5, 0.75, 1, 1])
    assert sgd_share(0, 10, 5) == pytest.approx(0.5 * math.exp(-4))
    near = [sgd_share(10 + d, 10, 5) for d in (-1e-6, 0, 1e-6)]
    assert near[1] - near[0] == pytest.approx(near[2] - near[1], rel=1e-5)


@pytest.mark.parametrize(("limit", "factor"), [(2.5, 0.5), (10.0, 1.0)])
def test_clipping_shortens_the_whole_gradient_to_the_norm(limit, factor):
    a, b, unused = (nn.Parameter(torch.zeros(2, dtype=torch.float64)) for _ in range(3))
    a.grad, b.grad = torch.tensor([3.0, 0.0], dtype=torch.float64), torch.tensor([0.0, 4.0], dtype=torch.float64)
    optimizer = ClippedGradient(SGD([([a, b, unused], 0.0)], 0.0), [a, b, unused], limit)
    optimizer.step(lr=1.0)
    assert (-a).tolist() == pytest.approx([3 * factor, 0.0], rel=1e-6)
    assert (-b).tolist() == pytest.approx([0.0, 4 * factor], rel=1e-6)
    assert unused.grad is None
