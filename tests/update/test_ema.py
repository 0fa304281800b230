"""The weights' average: its definition, evaluated in the weights' place, saved beside them."""

import pytest
import torch
from safetensors.torch import load_file
from support.update_runs import data as data
from support.update_runs import train
from torch import nn

from batchscale.models import MODELS
from batchscale.training.checkpoint import tensors_sha256
from batchscale.update.ema import AveragedWeights
from batchscale.update.sgd import SGD


def test_the_average_is_that_of_its_definition_from_the_first_step_on():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).double()
    average = AveragedWeights(SGD([(list(model.parameters()), 0.0)], 0.0), model.state_dict(), 0.7)
    assert all(torch.equal(average.averaged()[name], w) for name, w in model.state_dict().items())
    seen = []
    for step in range(1, 5):
        for p in model.parameters():
            p.grad = torch.full_like(p, float(step))
        model[1].running_mean += step
        model[1].num_batches_tracked += 1
        average.step(lr=0.1)
        seen.append({name: w.clone() for name, w in model.state_dict().items()})
        shares = [0.7 ** (step - 1 - i) for i in range(step)]
        for name, averaged in average.averaged().items():
            if averaged.is_floating_point():
                expected = sum(s * w[name] for s, w in zip(shares, seen, strict=True)) / sum(shares)
                torch.testing.assert_close(averaged, expected, rtol=1e-12, atol=1e-12)
            else:
                assert averaged == step


def test_the_models_own_weights_come_back_bit_by_bit():
    model = nn.Linear(2, 2)
    average = AveragedWeights(SGD([(list(model.parameters()), 0.0)], 0.0), model.state_dict(), 0.7)
    for _ in range(2):
        for p in model.parameters():
            p.grad = torch.ones_like(p)
        average.step(lr=0.1)
    weight = model.weight.detach().clone()
    with average.in_place():
        assert torch.equal(model.weight, average.averaged()["weight"])
        assert not torch.equal(model.weight, weight)
    assert torch.equal(model.weight, weight)
    with pytest.raises(KeyboardInterrupt):
        interrupted_in(average)
    assert torch.equal(model.weight, weight)


def interrupted_in(average):
    with average.in_place():
        raise KeyboardInterrupt


def test_a_run_evaluates_and_saves_the_average_and_trains_as_without(data, tmp_path):
    plain = train(data, None, "numerics.micro_batch=8")
    result = train(data, tmp_path / "run", "numerics.micro_batch=8", "model.ema_decay=0.8")
    assert result.weights_sha256 == plain.weights_sha256
    assert result.test_loss != plain.test_loss
    saved = load_file(tmp_path / "run" / "weights_ema.safetensors")
    assert tensors_sha256({n: saved[n] for n in load_order(saved)}) == result.weights_ema_sha256
    model = MODELS["cnn"]((1, 8, 8), 4)
    model.load_state_dict(saved)
    pixels = data.train_images.float()
    with torch.no_grad():
        logits = model.eval()((data.test_images.float() - pixels.mean()) / pixels.std(correction=0))
    assert float(nn.functional.cross_entropy(logits, data.test_labels)) == pytest.approx(result.test_loss, rel=1e-4)


def load_order(saved):
    return [name for name in MODELS["cnn"]((1, 8, 8), 4).state_dict() if name in saved]
