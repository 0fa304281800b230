"""Muon: torch's own for hidden matrices, AdamW for the rest; which tensors are whose; nets that have none."""

import numpy as np
import pytest
import torch
from torch import nn

from batchscale.build.build import validate
from batchscale.errors import RecipeError
from batchscale.models import MODELS
from batchscale.recipe import load_recipe
from batchscale.update.muon import Muon, hidden_matrices

LRS = [0.1, 0.2, 0.0, 0.05, 0.3]
MOMENTA = [0.95, 0.95, 0.8, 0.8, 0.9]
NS = (3.4445, -4.7750, 2.0315)


def parameters():
    generator = torch.Generator().manual_seed(0)
    shapes = [(6, 4), (3, 8), (5,), (2, 3, 2), (7, 4)]
    return [nn.Parameter(torch.randn(s, generator=generator, dtype=torch.float64)) for s in shapes]


def draw(weights, generator):
    for w in weights:
        w.grad = torch.randn(w.shape, generator=generator, dtype=torch.float64) + w.detach()


@pytest.mark.parametrize("adjust", ["match_rms_adamw", "original", "spectral_unclamped"])
@pytest.mark.parametrize("nesterov", [True, False])
def test_matrices_go_by_torchs_muon_and_the_rest_by_torchs_adamw(adjust, nesterov):
    ours, theirs = parameters(), parameters()
    groups = [([ours[0], ours[2], ours[4]], 0.1), ([ours[1], ours[3]], 0.0)]
    muon = Muon(groups, 0.95, nesterov, adjust, 0.8, 0.95, 1e-6, matrices=ours[:2])  # the last is an embedding, say
    matrices = [{"params": theirs[:1], "weight_decay": 0.1}, {"params": theirs[1:2], "weight_decay": 0.0}]
    rest = [{"params": [theirs[2], theirs[4]], "weight_decay": 0.1}, {"params": theirs[3:4], "weight_decay": 0.0}]
    references = [
        torch.optim.Muon(matrices, nesterov=nesterov, adjust_lr_fn=adjust),
        torch.optim.AdamW(rest, betas=(0.8, 0.95), eps=1e-6, foreach=False, fused=False),
    ]
    generators = [torch.Generator().manual_seed(1) for _ in range(2)]
    for lr, momentum in zip(LRS, MOMENTA, strict=True):
        for weights, generator in zip((ours, theirs), generators, strict=True):
            draw(weights, generator)
        muon.momentum = momentum
        muon.step(lr=lr)
        for reference in references:
            for group in reference.param_groups:
                group |= {"lr": lr, **({"momentum": momentum} if "momentum" in group else {})}
            reference.step()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_a_matrix_step_is_the_papers_written_out_in_numpy():
    """In float64, where torch iterates in bfloat16: alike to a few parts in a hundred of the step's length."""
    weight = parameters()[0]
    gradient = torch.randn(6, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    start, weight.grad = weight.detach().numpy().copy(), gradient
    muon = Muon([([weight], 0.1)], momentum=0.9)
    muon.decay_factor = 2.0
    muon.step(lr=0.5)
    momentum = 0.1 * gradient.numpy()
    x = (0.1 * gradient.numpy() + 0.9 * momentum).T
    x = x / np.linalg.norm(x)
    for _ in range(5):
        a = x @ x.T
        x = NS[0] * x + (NS[1] * a + NS[2] * a @ a) @ x
    expected = (1 - 0.5 * 0.2) * start - 0.5 * 0.2 * np.sqrt(6) * x.T
    error = np.linalg.norm(weight.detach().numpy() - expected) / np.linalg.norm(0.5 * 0.2 * np.sqrt(6) * x)
    assert error < 0.03
    assert 0.6 < np.linalg.svd(x, compute_uv=False).min() < np.linalg.svd(x, compute_uv=False).max() < 1.3


def names_of(model):
    chosen = {id(p) for p in hidden_matrices(model)}
    return [name for name, p in model.named_parameters() if id(p) in chosen]


def test_embeddings_and_the_output_head_are_adamws_and_hidden_matrices_muons():
    transformer = MODELS["transformer"]((16,), 64, width=64, layers=2)
    assert names_of(transformer) == [
        f"blocks.{block}.{layer}.weight"
        for block in (0, 1)
        for layer in ("attention.queries_keys_values", "attention.mixture", "wide", "narrow")
    ]
    lstm = names_of(MODELS["lstm"]((16,), 65))
    assert len(lstm) >= 2
    assert all("weight_ih" in name or "weight_hh" in name for name in lstm)
    mlp = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3))
    assert names_of(mlp) == ["0.weight", "2.weight"]
    mlp[0].weight.requires_grad_(False)
    assert names_of(mlp) == ["2.weight"]
    for name in ("cnn", "resnet8"):
        assert names_of(MODELS[name]((3, 16, 16), 10)) == []


def test_a_net_without_hidden_matrices_is_refused_by_name_before_anything_starts():
    recipe = load_recipe("digits-cnn", ["optimizer={name: muon}"])
    with pytest.raises(
        RecipeError, match=r"optimizer.name=muon: model.name=cnn has no matrix for it: .* use "
    ) as error:
        validate(recipe, None, 1)
    assert "\n" not in str(error.value)
    validate(load_recipe("topics-transformer", ["optimizer={name: muon}"]), None, 1)


def test_constants_set_between_steps_reach_adamws_part():
    ours, alone = parameters(), parameters()
    muon, rest = Muon([(ours, 0.1)], matrices=ours[:2]), Muon([(alone, 0.1)], matrices=alone[:2])
    generators = [torch.Generator().manual_seed(1) for _ in range(2)]
    for step, lr in enumerate(LRS):
        for weights, generator in zip((ours, alone), generators, strict=True):
            draw(weights, generator)
        if step == 2:
            muon.beta1, muon.beta2, muon.epsilon = 0.5, 0.6, 1e-3
        muon.step(lr=lr)
        rest.step(lr=lr)
        same = [torch.equal(a, b) for a, b in zip(ours, alone, strict=True)]
        assert same == ([True] * 5 if step < 3 else [True, True, False, False, False])
