"""A run's folder and a step, opened: the model that the run had, its data and task, and nothing else changed."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from support.runs import RECIPE
from support.runs import data as data

import batchscale
from batchscale.build.state import devices_in_use, open_state
from batchscale.errors import CheckpointError, FolderError
from batchscale.models import named_model
from batchscale.training import checkpoint as checkpoints

KEPT = ("numerics.micro_batch=8", "execution.keep_checkpoints={epochs: [1]}", "execution.evaluation_epochs=1")


@pytest.fixture(scope="module", params=["fp32", "bf16", "averaged"])
def run(data, request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("state") / "run"
    more = {"fp32": (), "bf16": ("precision=bf16",), "averaged": ("model.ema_decay=0.8",)}[request.param]
    batchscale.train(RECIPE, [*KEPT, *more], data=data, out=folder, quiet=True)
    return folder


@pytest.mark.parametrize("step", [4, "last"])
def test_a_state_evaluates_to_what_the_run_recorded_at_that_step(data, run, step):
    state = open_state(run, step, data=data)
    lines = [json.loads(line) for line in (run / "evaluations.jsonl").read_text().splitlines()]
    line = next(line for line in lines if line["step"] == state.step)
    evaluated = state.evaluate()
    assert (evaluated.loss, evaluated.counts[0], evaluated.examples) == (line["loss"], line["wrong"], line["images"])
    assert state.task.scores(evaluated) == line["scores"] == {"error": line["error_percent"]}


def test_the_model_is_the_plain_module_with_the_weights_of_the_step(data, run):
    state = open_state(run, 4, data=data)
    saved = checkpoints.load(checkpoints.folder_of(run, 4, "step")).tensors
    held = state.model.state_dict()
    assert all(torch.equal(tensor, saved[f"model.{name}"]) for name, tensor in held.items())
    state.evaluate()  # leaves the weights, also where it evaluates averaged ones
    assert all(torch.equal(tensor, saved[f"model.{name}"]) for name, tensor in state.model.state_dict().items())
    assert not state.model.training


def test_opening_changes_nothing_of_the_process(data, run):
    torch.manual_seed(3)
    before = (torch.get_rng_state(), torch.get_num_threads(), torch.are_deterministic_algorithms_enabled())
    open_state(run, data=data).evaluate()
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before[1:]


def test_the_file_of_initial_weights_may_be_gone(data, tmp_path):
    torch.manual_seed(0)
    model = named_model("cnn", (1, 8, 8), 4)
    file = tmp_path / "initial.pt"
    torch.save(model.state_dict(), file)
    batchscale.train(RECIPE, [*KEPT, f"model.pretrained={file}"], data=data, out=tmp_path / "run", quiet=True)
    file.unlink()
    state = open_state(tmp_path / "run", data=data)
    weights = load_file(tmp_path / "run" / "weights.safetensors")
    assert all(torch.equal(tensor, weights[name]) for name, tensor in state.model.state_dict().items())


def test_averages_of_no_update_are_none(data, tmp_path):
    """fp16 may undo its first steps; the run itself evaluates the weights then."""
    out = tmp_path / "run"
    batchscale.train(RECIPE, [*KEPT, "model.ema_decay=0.8"], data=data, out=out, quiet=True)
    state = open_state(out, data=data)
    assert state.averaged_weights
    zeros = {name: torch.zeros_like(t) for name, t in state.tensors.items() if name.startswith("optimizer.ema")}
    early = replace(state, tensors={**state.tensors, **zeros})
    assert early.averaged_weights == {}
    assert early.evaluate() == state.evaluate(averaged=False)


@pytest.mark.parametrize(
    ("device", "in_use", "forked"), [("cpu", False, []), ("cpu", True, [0, 1]), ("cuda", False, [0, 1])]
)
def test_random_numbers_of_every_device_in_use_stay(monkeypatch, device, in_use, forked):
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: in_use)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert devices_in_use(torch.device(device)) == forked


def test_what_is_not_there_is_said_in_one_line(data, run, tmp_path):
    with pytest.raises(FolderError, match="holds no run"):
        open_state(tmp_path)
    with pytest.raises(CheckpointError, match=r"step 5: .* has no checkpoint of this step; it has 3 "):
        open_state(run, 5)
    with pytest.raises(CheckpointError, match="holds a run on other data"):
        _ = open_state(run, data=other(data)).dataset
    with pytest.raises(CheckpointError, match="holds another model's state"):
        _ = open_state(run, data=data, model=torch.nn.Linear(2, 2)).model
    shutil.copytree(run, tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy" / "checkpoints")
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        open_state(tmp_path / "copy")


def other(data):
    return batchscale.Dataset("own", data.train_images + 1, data.train_labels, data.test_images, data.test_labels, 4)
