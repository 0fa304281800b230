"""LARC: its formula, timm's clipped LARS, and plain SGD where the schedule's lr is the smaller one."""

import pytest
import torch
from torch import nn

from batchscale.update.larc import LARC
from batchscale.update.sgd import SGD

LRS = [0.1, 0.2, 0.002, 0.4, 0.0, 0.04, 0.3]
SHAPES = [(3, 4), (5, 2, 3), (4,)]


def parameters():
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(s, generator=generator, dtype=torch.float64)) for s in SHAPES]


def gradients_for(weights, generator):
    for w in weights:
        w.grad = torch.randn(w.shape, generator=generator, dtype=torch.float64) + w.detach()


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_larc_is_its_formula_under_a_changing_lr(momentum):
    weights, trust, decay, epsilon = parameters(), 0.05, 0.1, 1e-3
    larc = LARC([(weights[:2], decay), (weights[2:], 0.0)], momentum, trust, epsilon)
    expected, moving = [w.detach().clone() for w in weights], [torch.zeros_like(w) for w in weights]
    generator, clipped = torch.Generator().manual_seed(1), []
    for lr in LRS:
        gradients_for(weights, generator)
        larc.step(lr=lr)
        for i, (w, u, p) in enumerate(zip(expected, moving, weights, strict=True)):
            rate = trust * w.norm() / (p.grad.norm() + decay * w.norm() + epsilon) if i < 2 else lr
            clipped.append(bool(rate < lr))
            u.mul_(momentum).add_((min(rate / lr, 1) if lr else 1) * (p.grad + (decay if i < 2 else 0.0) * w))
            w.sub_(lr * u)
    assert set(clipped) == {True, False}
    for ours, reference in zip(weights, expected, strict=True):
        torch.testing.assert_close(ours.detach(), reference, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("decay", [0.01, 0.3])
def test_larc_equals_timms_clipped_lars_under_a_changing_lr(decay):
    theirs_of = pytest.importorskip("timm.optim.lars").Lars
    ours, theirs = parameters(), parameters()
    larc = LARC([(ours[:2], decay), (ours[2:], 0.0)], 0.9, 0.05, 1e-8)
    groups = [{"params": theirs[:2], "weight_decay": decay}, {"params": theirs[2:], "weight_decay": 0.0}]
    lars = theirs_of(groups, momentum=0.9, trust_coeff=0.05, trust_clip=True, foreach=False)
    generators = [torch.Generator().manual_seed(1) for _ in range(2)]
    for lr in (lr for lr in LRS if lr):  # timm divides by it
        for weights, generator in zip((ours, theirs), generators, strict=True):
            gradients_for(weights, generator)
        larc.step(lr=lr)
        for group in lars.param_groups:
            group["lr"] = lr
        lars.step()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_below_every_layers_rate_it_is_sgd_and_above_it_never_steps_further_than_lars_would():
    ours, theirs = parameters(), parameters()
    larc, sgd = LARC([(ours, 0.1)], 0.9, trust_coefficient=10.0), SGD([(theirs, 0.1)], 0.9)
    generators = [torch.Generator().manual_seed(1) for _ in range(2)]
    for lr in LRS:
        for weights, generator in zip((ours, theirs), generators, strict=True):
            gradients_for(weights, generator)
        larc.step(lr=lr)
        sgd.step(lr=lr)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    weight = nn.Parameter(torch.tensor([3.0, 4.0]))
    weight.grad = torch.tensor([0.6, 0.8])
    LARC([([weight], 0.0)], 0.0, trust_coefficient=0.01).step(lr=100.0)
    assert weight.tolist() == pytest.approx([2.97, 3.96])  # 0.01 x 5 / 1 of g, whatever the lr
