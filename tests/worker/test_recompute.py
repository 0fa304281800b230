"""Evaluation after few steps: batch norm's statistics recomputed at the weights, and the averages' lag said."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support.dues import stop_after
from support.update_runs import data as data
from support.update_runs import train
from support.worlds import in_processes
from torch import nn

from batchscale.comm import World
from batchscale.data.examples import TensorExamples
from batchscale.data.feed import Normalizer
from batchscale.errors import RecipeError
from batchscale.models import MODELS
from batchscale.randomness import key, shuffled
from batchscale.run.run import Stopped
from batchscale.training.due import DUES
from batchscale.worker.batch_norm import replace_batch_norm
from batchscale.worker.recompute import Recomputation

RECOMPUTED = "batch_norm.running=recomputed"


def recomputation(model, images, span=1):
    model, statistics, averages, _ = replace_batch_norm(model, torch.float64, torch.device("cpu"), span)
    normalizer = Normalizer([0.0], [1.0], torch.float64, torch.contiguous_format, torch.device("cpu"))
    examples = TensorExamples(images, torch.zeros(len(images), dtype=torch.int64))
    return model, Recomputation(model, averages.layers, statistics, examples, normalizer, World())


def first_layer():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Dropout(0.5)).double()


@pytest.mark.parametrize("span", [1, 2])
def test_statistics_of_all_passes_together_are_those_of_all_their_images_at_once(span):
    """The first layer's inputs hang on no statistics, so mean and variance are those of one pass over all."""
    images = torch.randn(26, 2, 6, 6, dtype=torch.float64) + torch.arange(26.0).reshape(-1, 1, 1, 1)
    model, recompute = recomputation(first_layer(), images, span)
    mean, variance = recompute.measure(per_worker=4 // span)
    whole = model[0](images[:24])  # what does not fill a pass is left out
    torch.testing.assert_close(mean, whole.mean((0, 2, 3)), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(variance, whole.var((0, 2, 3)), rtol=1e-12, atol=1e-12)


def test_the_model_holds_them_for_a_while_and_is_then_as_it_was_bit_by_bit():
    model, recompute = recomputation(first_layer(), torch.randn(24, 2, 6, 6, dtype=torch.float64))
    model[1].running_mean.fill_(0.1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    generator = torch.get_rng_state()
    with recompute.in_place(per_worker=4):
        torch.testing.assert_close(torch.stack([model[1].running_mean, model[1].running_var]),
                                   torch.stack(recompute.measure(4)))  # fmt: skip
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert torch.equal(torch.get_rng_state(), generator)  # nothing was dropped


def test_a_layer_that_a_model_keeps_in_evaluation_mode_keeps_its_averages():
    model, recompute = recomputation(first_layer(), torch.randn(24, 2, 6, 6, dtype=torch.float64))
    model[1].running_mean.fill_(0.1)
    model[1].eval()
    mean, variance = recompute.measure(per_worker=4)
    assert (mean == 0.1).all()
    assert (variance == 1.0).all()


def test_a_layer_that_runs_in_training_alone_keeps_its_averages():
    class Auxiliary(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.aside = nn.BatchNorm2d(2), nn.BatchNorm2d(2)

        def forward(self, x):
            return self.norm(x) + (self.aside(x) if self.training else 0)

    model, recompute = recomputation(Auxiliary().double(), torch.randn(8, 2, 3, 3, dtype=torch.float64))
    model.aside.running_var.fill_(7.0)
    with recompute.in_place(per_worker=4):
        assert (model.aside.running_var == 7.0).all()
        assert (model.norm.running_var != 1.0).all()


def measured(rank, data, overrides):
    result = train(data, None, RECOMPUTED, *overrides)
    return result.test_loss, result.weights_sha256


@pytest.mark.parametrize("span", ["batch_norm.span=1", "minibatch.workers=6", "batch_norm.span=2"])
def test_any_number_of_processes_measures_the_same_bits(data, span):
    overrides = ["numerics.exact=true", "epochs=1", "minibatch.workers=6", "minibatch.per_worker=4", span]
    alone = measured(0, data, overrides)
    assert in_processes(3, measured, data, overrides) == [alone] * 3


def test_training_does_not_hang_on_how_often_it_is_evaluated(data, tmp_path):
    """Lines of exact mode hold the sha256 of the training state."""
    every, once = tmp_path / "every", tmp_path / "once"
    common = ("numerics.exact=true", "execution.log_steps=1")
    train(data, every, RECOMPUTED, "execution.evaluation_steps=1", *common)
    train(data, once, RECOMPUTED, "execution.evaluation_epochs=2", *common)
    plain = train(data, tmp_path / "plain", *common)
    shas = [
        [json.loads(line)["weights_sha256"] for line in (out / "metrics.jsonl").read_text().splitlines()]
        for out in (every, once, tmp_path / "plain")
    ]
    assert shas[0] == shas[1] == shas[2]
    assert shas[0][-1] == plain.weights_sha256


@pytest.mark.parametrize("averaged", [False, True])
def test_the_weights_that_are_left_hold_what_was_evaluated(data, tmp_path, averaged):
    options = ("model.ema_decay=0.8",) if averaged else ()
    result = train(data, tmp_path, RECOMPUTED, "precision=fp64", "batch_norm.recompute_examples=96", *options)
    names = ("weights", "weights_ema") if averaged else ("weights",)
    order = shuffled(key(202), np.arange(96), 110)
    pixels = data.train_images.double()
    images = ((pixels - pixels.mean()) / pixels.std(correction=0))[torch.from_numpy(order)]
    for name in names:
        left = load_file(tmp_path / f"{name}.safetensors")
        first = nn.functional.conv2d(images, left["0.weight"], padding=1)
        torch.testing.assert_close(left["1.running_var"], first.var((0, 2, 3)), rtol=1e-9, atol=1e-12)
    assert result.recompute_seconds > 0
    assert result.evaluation_seconds > 0
    plain, left = MODELS["cnn"]((1, 8, 8), 4).double().eval(), load_file(tmp_path / f"{names[-1]}.safetensors")
    plain.load_state_dict(left)
    test = (data.test_images.double() - pixels.mean()) / pixels.std(correction=0)
    assert nn.functional.cross_entropy(plain(test), data.test_labels).item() == pytest.approx(result.test_loss, 1e-9)


def test_a_resume_goes_on_as_if_it_had_not_stopped(data, tmp_path, monkeypatch):
    straight = train(data, None, RECOMPUTED, "numerics.exact=true")
    monkeypatch.setitem(DUES, "stop", stop_after(3))
    with pytest.raises(Stopped):
        train(data, tmp_path / "run", RECOMPUTED, "numerics.exact=true")
    monkeypatch.undo()
    resumed = train(data, tmp_path / "run", RECOMPUTED, "numerics.exact=true", resume="yes")
    assert (resumed.weights_sha256, resumed.test_loss) == (straight.weights_sha256, straight.test_loss)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ([RECOMPUTED, "batch_norm.recompute_examples=4"], r"recompute_examples=4: must lie between the 8 images .* and "
         r"the 110 training images; use 8"),
        ([RECOMPUTED, "batch_norm.recompute_examples=111"], r"recompute_examples=111: must lie .*; use 110"),
        (["batch_norm.recompute_examples=64"], r"has no place in running: averages; .*running=recomputed"),
    ],
)  # fmt: skip
def test_examples_that_are_no_passes_are_one_line(data, overrides, said):
    with pytest.raises(RecipeError, match=said):
        train(data, None, "minibatch.per_worker=8", *overrides)


def test_short_runs_say_that_averages_lag_and_others_do_not(data, tmp_path, capsys):
    def warnings(name, *overrides):
        train(data, tmp_path / name, "epochs=0.5", *overrides)
        return json.loads((tmp_path / name / "environment.json").read_text())["warnings"]

    assert "lag about ten steps behind the weights, and this run has 2 steps" in warnings("averages")[0]
    assert warnings("recomputed", RECOMPUTED) == []
    assert warnings("none", "batch_norm.running=none") == []
    assert warnings("long", "epochs=20") == []
    assert warnings("without", "model.name=simple_cnn") == []
