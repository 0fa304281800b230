"""Every optimizer against its paper's formula, written out once more in NumPy: float64, over steps that all differ.

The lr rises and falls, in between it is zero, and the momentum changes; gradients hang on the weights, so that an error
of one step stays.
"""

import math

import numpy as np
import pytest
import torch
from torch import nn

from batchscale.update.adamw import AdamW
from batchscale.update.clip import ClippedGradient
from batchscale.update.ema import AveragedWeights
from batchscale.update.lamb import LAMB
from batchscale.update.lars import LARS
from batchscale.update.rmsprop_warmup import RMSpropWarmup
from batchscale.update.sgd import SGD, SGDLrInBuffer

LRS = [0.01, 0.02, 0.04, 0.08, 0.08, 0.0, 0.08, 0.016, 0.016, 0.001, 0.05, 0.3]
MOMENTA = [0.9] * 4 + [0.5] * 4 + [0.97] * 4
DECAY = 0.05
SHAPES = ((3, 4), (4,))  # a weight that is adapted and decayed, and a bias that is neither


def gradient(w, step):
    """Of a quadratic whose centre moves."""
    return 0.7 * (w - np.cos(np.arange(w.size).reshape(w.shape) + step))


def start():
    return [np.sin(1.0 + np.arange(math.prod(shape))).reshape(shape) for shape in SHAPES]


def sgd(w, s, g, lr, m, d, t, nesterov):
    """Goyal et al. 2017, equation 9; Nesterov with the look-ahead written into the gradient's place."""
    g = g + d * w
    s["u"] = m * s.get("u", 0.0) + g
    return w - lr * (g + m * s["u"] if nesterov else s["u"])


def lr_in_buffer(w, s, g, lr, m, d, t, correction):
    """Goyal et al. 2017, equation 10 and remark 2; a step at lr 0 keeps the buffer in the lr before it."""
    g, unit = g + d * w, lr or s.get("lr", 1.0)
    factor = unit / s.get("lr", unit) if correction else 1.0
    s["v"], s["lr"] = m * factor * s.get("v", 0.0) + unit * g, unit
    return w - s["v"] if lr else w


def lars(w, s, g, lr, m, d, t, eta=0.02):
    """You et al. 2017, algorithm 1."""
    local = eta * np.linalg.norm(w) / (np.linalg.norm(g) + d * np.linalg.norm(w)) if d else 1.0
    s["v"] = m * s.get("v", 0.0) + lr * local * (g + d * w)
    return w - s["v"]


def adam(s, g, t, b1, b2, eps):
    """Kingma and Ba 2015, algorithm 1: the direction."""
    s["m"] = b1 * s.get("m", 0.0) + (1 - b1) * g
    s["q"] = b2 * s.get("q", 0.0) + (1 - b2) * g * g
    return s["m"] / (1 - b1**t) / (np.sqrt(s["q"] / (1 - b2**t)) + eps)


def lamb(w, s, g, lr, m, d, t):
    """You et al. 2020, algorithm 2, phi the identity."""
    r = adam(s, g, t, 0.9, 0.99, 1e-6) + d * w
    return w - lr * (np.linalg.norm(w) / np.linalg.norm(r) if d else 1.0) * r


def adamw(w, s, g, lr, m, d, t):
    """Loshchilov and Hutter 2019, algorithm 2, alpha the lr and the decay times it."""
    return w - lr * (adam(s, g, t, 0.9, 0.99, 1e-6) + d * w)


def rmsprop_warmup(w, s, g, lr, m, d, t):
    """Akiba et al. 2017: alpha_SGD 1/2 at epoch 1.5 over a period of 2, an epoch four steps."""
    e = (t - 1) / 4
    a = 0.5 * math.exp(2 * (e - 1.5) / 2) if e < 1.5 else min(0.5 + (e - 1.5) / 2, 1.0)
    g = g + d * w
    s["q"] = 0.99 * s.get("q", 0.0) + 0.01 * g * g
    rms = (1 - a) * 3e-2 / (np.sqrt(s["q"]) + 1e-8) / lr if lr else 0.0
    s["v"] = m * s.get("v", 0.0) - (a + rms) * g
    return w + lr * s["v"]


def groups(weights):
    return [([weights[0]], DECAY), ([weights[1]], 0.0)]


CASES = {
    "sgd": (lambda g: SGD(g, 0.9), lambda *x: sgd(*x, False)),
    "nesterov": (lambda g: SGD(g, 0.9, True), lambda *x: sgd(*x, True)),
    "lr in buffer": (lambda g: SGDLrInBuffer(g, 0.9), lambda *x: lr_in_buffer(*x, True)),
    "without the correction": (
        lambda g: SGDLrInBuffer(g, 0.9, momentum_correction=False),
        lambda *x: lr_in_buffer(*x, False),
    ),
    "lars": (lambda g: LARS(g, 0.9, 0.02, 1e-30), lars),
    "lamb": (lambda g: LAMB(g, 0.9, 0.99, 1e-6), lamb),
    "adamw": (lambda g: AdamW(g, 0.9, 0.99, 1e-6), adamw),
    "rmsprop warm-up": (
        lambda g: RMSpropWarmup(g, lambda steps: steps / 4, 0.9, 0.99, 3e-2, 1.5, 2.0, 1e-8),
        rmsprop_warmup,
    ),
}


def by_formula(update, shorten=lambda gradients: gradients):
    """The weights after every step."""
    weights, states, after = start(), [{}, {}], []
    for t, (lr, m) in enumerate(zip(LRS, MOMENTA, strict=True), 1):
        gradients = shorten([gradient(w, t) for w in weights])
        parts = zip(weights, states, gradients, (DECAY, 0.0), strict=True)
        weights = [update(w, s, g, lr, m, d, t) for w, s, g, d in parts]
        after.append([w.copy() for w in weights])
    return after


def by_optimizer(make, surround=lambda optimizer, weights: optimizer):
    weights = [nn.Parameter(torch.from_numpy(w)) for w in start()]
    named = make(groups(weights))
    optimizer, after = surround(named, weights), []
    for t, (lr, m) in enumerate(zip(LRS, MOMENTA, strict=True), 1):
        for w in weights:
            w.grad = torch.from_numpy(gradient(w.detach().numpy(), t))
        if hasattr(named, "momentum"):
            named.momentum = m
        optimizer.step(lr=lr)
        after.append([w.detach().numpy().copy() for w in weights])
    return after, optimizer


def assert_equal(ours, formula, tolerance=1e-12):
    for t, (a, b) in enumerate(zip(ours, formula, strict=True), 1):
        for x, y in zip(a, b, strict=True):
            np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance, err_msg=f"step {t}")


@pytest.mark.parametrize("name", CASES)
def test_every_step_is_the_papers(name):
    make, update = CASES[name]
    assert_equal(by_optimizer(make)[0], by_formula(update))


def test_clipping_and_the_weights_average_are_the_papers_through_all_steps():
    """Pascanu et al. 2013, algorithm 1, over all weights; a_t = sum_i d^(t-i) w_i / sum_i d^(t-i)."""
    limit, decay = 1.2, 0.8

    def shorten(gradients):
        norm = math.sqrt(sum(float((g * g).sum()) for g in gradients))
        return [g * min(1.0, limit / (norm + 1e-6)) for g in gradients]

    def surround(optimizer, weights):
        clipped = ClippedGradient(optimizer, weights, limit)
        return AveragedWeights(clipped, {str(i): w for i, w in enumerate(weights)}, decay)

    formula = by_formula(lambda *x: sgd(*x, True), shorten)
    ours, averaged = by_optimizer(lambda g: SGD(g, 0.9, True), surround)
    assert_equal(ours, formula)
    norms = [math.sqrt(sum(float((gradient(w, t) ** 2).sum()) for w in after)) for t, after in enumerate(formula, 2)]
    assert min(norms) < limit < max(norms)  # some steps are shortened, some are not
    shares = [decay ** (len(LRS) - 1 - i) for i in range(len(LRS))]
    for i in range(len(SHAPES)):
        average = sum(share * after[i] for share, after in zip(shares, formula, strict=True)) / sum(shares)
        np.testing.assert_allclose(averaged.averaged()[str(i)].numpy(), average, rtol=1e-12, atol=1e-12)
