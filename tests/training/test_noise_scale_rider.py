"""The noise scale in training: the plain loop's numbers, the same for every W, and no bit of the weights moved."""

import itertools
import json
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support.runs import RECIPE
from support.runs import data as data
from support.worlds import in_processes
from torch import nn

import batchscale
from batchscale.build.inputs import make_normalizer
from batchscale.errors import RecipeError
from batchscale.noise_scale import NoiseBlocks, StepNoise
from batchscale.order import StreamOrder
from batchscale.recipe import recipe_from
from batchscale.run import run as runs
from batchscale.worker.precision import LossScale

NAMES = ("noise_scale", "gradient_squared", "trace", "noise_steps")
EVERY_STEP = "execution.noise_scale_steps=1"


def train(data, out, *overrides, **kwargs):
    return batchscale.train(RECIPE, ["numerics.micro_batch=8", *overrides], data=data, out=out, quiet=True, **kwargs)


def noise_lines(out):
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [tuple(line[name] for name in NAMES) for line in lines if "trace" in line]


class Tied(nn.Module):
    """A matrix that is used twice, a frozen one, and one that no loss hangs on."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.first, self.frozen, self.last = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 4)
        self.second = nn.Linear(64, 64, bias=False)
        self.second.weight = self.first.weight
        self.unused = nn.Linear(4, 4)
        self.frozen.requires_grad_(False)

    def forward(self, x):
        return self.last(self.second(torch.tanh(self.frozen(torch.tanh(self.first(x.flatten(1)))))))


def plain_step(model, data, order, step, sizes):
    """A plain loop's answer for one step: a backward pass for every unit, with the gradient of its mean loss."""
    normalize = make_normalizer(recipe_from(RECIPE, ["precision=fp64"]), data.splits(), True, torch.device("cpu"))
    places = np.arange(32 * step, 32 * step + 32)
    images = np.concatenate([order.at_places(int(place) // 110, np.array([place % 110])) for place in places])
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    cuts = np.cumsum([0, *sizes])
    gradients = []
    for first, end in itertools.pairwise(cuts):
        examples = torch.from_numpy(images[first:end])
        loss = F.cross_entropy(model(normalize(data.train_images[examples])), data.train_labels[examples])
        parts = torch.autograd.grad(loss, weights, allow_unused=True)
        gradients.append(torch.cat([torch.zeros_like(w).flatten() if g is None else g.flatten()
                                    for g, w in zip(parts, weights, strict=True)]))  # fmt: skip
    sizes = torch.tensor(sizes, dtype=torch.float64)
    stacked = torch.stack(gradients)
    whole = (stacked * sizes[:, None]).sum(0) / 32
    trace = float((sizes * stacked.square().sum(1)).sum() - 32 * whole.square().sum()) / (len(sizes) - 1)
    return StepNoise(float(whole.square().sum()) - trace / 32 * (1 - 32 / 110), trace)


@pytest.mark.parametrize("passes", [8, 16, 24])
def test_its_numbers_are_those_of_a_plain_loop(data, tmp_path, passes):
    """Weights that stay (lr 0), float64, passes of one, of two, and of three workers and one; tied and frozen weights,
    and none at all."""
    model = Tied()
    fixed = ("precision=fp64", "learning_rate.reference=0", f"numerics.micro_batch={passes}", "batch_norm.running=none")
    result = train(data, tmp_path / "run", *fixed, EVERY_STEP, model=model)
    sizes = [passes] * (32 // passes) + ([32 % passes] if 32 % passes else [])
    order = StreamOrder(0, 110)
    blocks = NoiseBlocks()
    for step, line in enumerate(noise_lines(tmp_path / "run")):
        expected = plain_step(Tied().double(), data, order, step, sizes)
        assert line[1:] == pytest.approx((*expected, 1), rel=1e-9)
        blocks.add(expected)
    assert blocks.steps == result.steps == 11
    written = result.model_dump()["noise_scale"]
    assert written["steps"] == 11
    assert written["trace"] == pytest.approx(blocks.estimate().trace, rel=1e-9)


def test_a_worker_is_the_unit_with_batch_norm(data, tmp_path):
    """Each worker's gradient under its own statistics, in passes of one worker and against torch's own batch norm."""
    train(data, tmp_path / "run", "precision=fp64", "learning_rate.reference=0", "epochs=1", EVERY_STEP)
    model = runs_model(tmp_path / "run")
    for step, line in enumerate(noise_lines(tmp_path / "run")):
        expected = plain_step(model, data, StreamOrder(0, 110), step, [8] * 4)
        assert line[1:3] == pytest.approx(tuple(expected), rel=1e-9)


def runs_model(out):
    from safetensors.torch import load_file

    from batchscale.models import named_model

    model = named_model("cnn", (1, 8, 8), 4, {}).double()
    model.load_state_dict(load_file(out / "weights.safetensors"))
    return model.train()


def ranks_run(rank, data, folder, overrides):
    result = train(data, folder if rank == 0 else None, *overrides)
    return result.weights_sha256


@pytest.mark.parametrize("processes", [2, 3])
def test_exact_modes_numbers_are_the_same_bits_for_every_w(data, tmp_path, processes):
    exact = ("numerics.exact=true", "epochs=2", "execution.noise_scale_steps=2", "execution.log_steps=2")
    straight = train(data, tmp_path / "one", *exact)
    weights = in_processes(processes, ranks_run, data, tmp_path / "several", exact)
    assert set(weights) == {straight.weights_sha256}
    assert noise_lines(tmp_path / "several") == noise_lines(tmp_path / "one")
    assert len(noise_lines(tmp_path / "one")) == 3


@pytest.mark.parametrize("mode", ["numerics.exact=true", "numerics.micro_batch=8", "numerics.micro_batch=16"])
def test_the_weights_are_those_of_a_run_that_measures_nothing(data, tmp_path, mode):
    """Exact mode, and fast mode wherever a step has two passes anyway."""
    for overrides in ((), ("optimizer={name: adamw, weight_decay: 0.1}", "optimizer.clip_norm=0.1", "seed=3")):
        straight = train(data, None, mode, *overrides)
        measured = train(data, None, mode, "execution.noise_scale_steps=2", *overrides)
        assert measured.weights_sha256 == straight.weights_sha256


def test_fast_processes_train_the_same_bits_and_all_measure_alike(data, tmp_path):
    fast = ("numerics.micro_batch=16", "epochs=1", "execution.aggregation.bucket_megabytes=0.001")
    straight = in_processes(2, ranks_run, data, tmp_path / "straight", fast)
    measured = in_processes(2, ranks_run, data, tmp_path / "measured", (*fast, EVERY_STEP))
    assert straight == measured
    train(data, tmp_path / "one", *fast, EVERY_STEP)
    assert len(noise_lines(tmp_path / "measured")) == 4
    for one, two in zip(noise_lines(tmp_path / "one"), noise_lines(tmp_path / "measured"), strict=True):
        assert two[1:] == pytest.approx(one[1:], rel=1e-3)  # the same units: passes of two workers


def test_a_step_of_one_pass_is_cut_in_two_where_it_is_measured(data, tmp_path, monkeypatch):
    counts = []
    step_of = batchscale.FastAggregator.add
    monkeypatch.setattr(batchscale.FastAggregator, "add", lambda self: (counts.append(self._apart), step_of(self))[1])
    train(data, tmp_path / "run", "numerics.micro_batch=32", "epochs=1", "execution.noise_scale_steps=2")
    assert counts == [False, True, True, False, True, True]
    assert [line[3] for line in noise_lines(tmp_path / "run")] == [1, 1]


def test_fp16s_scale_is_taken_back_and_its_skipped_steps_are_left_out(data, tmp_path, monkeypatch):
    """At a scale that overflows at first: what is skipped is not measured, the rest is as without a scale."""
    monkeypatch.setattr("batchscale.build.assembly.LossScale", partial(LossScale, start=2.0**22))
    result = train(data, tmp_path / "fp16", "precision=fp16", EVERY_STEP, "learning_rate.reference=0")
    train(data, tmp_path / "fp32", EVERY_STEP, "learning_rate.reference=0")
    skipped = result.model_dump()["skipped_steps"]
    assert 0 < skipped < result.steps
    assert result.model_dump()["noise_scale"]["steps"] == result.steps - skipped
    last, same = noise_lines(tmp_path / "fp16")[-1], noise_lines(tmp_path / "fp32")[-1]
    assert last[2] == pytest.approx(same[2], rel=0.02)


def test_a_resume_goes_on_with_what_was_measured(data, tmp_path, monkeypatch):
    fixed = ("execution.noise_scale_steps=2", "execution.log_steps=3")
    straight = train(data, tmp_path / "straight", *fixed)
    asked = iter([False] * 3 + [True] * 100)
    monkeypatch.setattr(runs.StopSignals, "requested", lambda signals: stop(signals, next(asked)))
    with pytest.raises(runs.Stopped):
        train(data, tmp_path / "run", *fixed)
    monkeypatch.undo()
    resumed = train(data, tmp_path / "run", *fixed, resume="yes")
    assert resumed.model_dump()["noise_scale"] == straight.model_dump()["noise_scale"]
    assert noise_lines(tmp_path / "run") == noise_lines(tmp_path / "straight")


def stop(signals, asks):
    signals.received = 15 if asks else None
    return asks


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (
            ("minibatch.workers=1",),
            "minibatch.workers=1: one worker is one pass.*use minibatch.workers=2 minibatch.per",
        ),
        (("batch_norm.span=2",), "batch_norm.span=2: workers that share statistics.*use batch_norm.span=1"),
    ],
)
def test_a_step_without_two_gradients_is_refused(data, tmp_path, overrides, sentence):
    with pytest.raises(RecipeError, match=f"execution.noise_scale_steps=5 with {sentence}"):
        train(data, tmp_path / "run", "numerics.micro_batch=auto", "execution.noise_scale_steps=5", *overrides)
    assert not (tmp_path / "run").exists()
