"""Adam whose betas change between steps: corrected by 1 - the product of those used, whatever came before."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from batchscale.update.adamw import AdamW
from batchscale.update.lamb import LAMB

LRS = [0.1, 0.2, 0.4, 0.0, 0.05, 0.3, 0.3, 0.1]
BETAS = [(0.9, 0.99)] * 3 + [(0.6, 0.96)] * 2 + [(0.9, 0.99)] + [(0.2, 0.5)] * 2
EPSILONS = [1e-3] * 3 + [5e-4] * 5
FACTORS = [1.0] * 4 + [2.0] * 4
LATE = 4  # the second tensor's first step
SHAPES = ((3, 4), (2, 3), (4,))
DECAYS = (0.05, 0.05, 0.0)


def start():
    return [np.sin(1.0 + np.arange(math.prod(shape))).reshape(shape) for shape in SHAPES]


def gradient(weight, step):
    return 0.7 * (weight - np.cos(np.arange(weight.size).reshape(weight.shape) + step))


def by_formula(kind):
    weights, states = start(), [{"m": 0.0, "v": 0.0, "of_m": 1.0, "of_v": 1.0} for _ in SHAPES]
    for step, (lr, (b1, b2), epsilon) in enumerate(zip(LRS, BETAS, EPSILONS, strict=True)):
        for i, s in enumerate(states):
            if i == 1 and step < LATE:
                continue
            g = gradient(weights[i], step)
            s["m"], s["v"] = b1 * s["m"] + (1 - b1) * g, b2 * s["v"] + (1 - b2) * g * g
            s["of_m"], s["of_v"] = s["of_m"] * b1, s["of_v"] * b2
            r = s["m"] / (1 - s["of_m"]) / (np.sqrt(s["v"] / (1 - s["of_v"])) + epsilon)
            if kind is AdamW:
                weights[i] = weights[i] - lr * (r + FACTORS[step] * DECAYS[i] * weights[i])
            else:
                r = r + DECAYS[i] * weights[i]
                ratio = np.linalg.norm(weights[i]) / np.linalg.norm(r) if DECAYS[i] else 1.0
                weights[i] = weights[i] - lr * ratio * r
    return weights


def make(kind, weights):
    return kind([(weights[:2], 0.05), (weights[2:], 0.0)], 0.9, 0.99, 1e-3)


def take(optimizer, weights, step):
    optimizer.beta1, optimizer.beta2 = BETAS[step]
    optimizer.epsilon = EPSILONS[step]
    if isinstance(optimizer, AdamW):
        optimizer.decay_factor = FACTORS[step]
    for i, w in enumerate(weights):
        w.grad = None if i == 1 and step < LATE else torch.from_numpy(gradient(w.detach().numpy(), step))
    optimizer.step(lr=LRS[step])


@pytest.mark.parametrize("copied_at", [None, 2, 3, 4, 6])
@pytest.mark.parametrize("kind", [AdamW, LAMB])
def test_every_step_is_corrected_by_the_product_of_the_betas_used_also_of_a_copied_state(kind, copied_at):
    weights = [nn.Parameter(torch.from_numpy(w)) for w in start()]
    optimizer = make(kind, weights)
    for step in range(len(LRS)):
        if step == copied_at:
            other = make(kind, weights)
            for name, tensor in other.state().items():
                tensor.copy_(optimizer.state()[name])
            optimizer = other
        take(optimizer, weights, step)
    for ours, expected in zip(weights, by_formula(kind), strict=True):
        np.testing.assert_allclose(ours.detach().numpy(), expected, rtol=1e-12, atol=1e-12)


def test_torchs_own_count_would_be_another_update():
    """So the test above sees what it is to see: torch corrects by the last betas to the power of the steps."""
    ours, theirs = ([nn.Parameter(torch.from_numpy(w)) for w in start()] for _ in range(2))
    optimizer = make(AdamW, ours)
    plain = torch.optim.AdamW([{"params": theirs[:2], "weight_decay": 0.05}, {"params": theirs[2:], "weight_decay": 0}])
    for step in range(len(LRS)):
        take(optimizer, ours, step)
        for group in plain.param_groups:
            group |= {"lr": LRS[step], "betas": BETAS[step], "eps": EPSILONS[step]}
        for i, w in enumerate(theirs):
            w.grad = None if i == 1 and step < LATE else torch.from_numpy(gradient(w.detach().numpy(), step))
        plain.step()
    assert float((ours[2] - theirs[2]).detach().abs().max()) > 1e-3


@pytest.mark.parametrize("kind", [AdamW, LAMB])
def test_betas_set_to_what_they_were_change_no_bit(kind):
    runs = []
    for again in (False, True):
        weights = [nn.Parameter(torch.from_numpy(w).float()) for w in start()]
        optimizer = make(kind, weights)
        for step in range(5):
            for i, w in enumerate(weights):
                w.grad = torch.full_like(w, float(step - i)) + w.detach()
            if again:
                optimizer.beta1, optimizer.beta2 = 0.9, 0.99
            optimizer.step(lr=0.1)
        runs.append([w.detach().clone() for w in weights])
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))
