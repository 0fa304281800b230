"""A run that a version before this one has begun goes on as it began."""

import dataclasses

import pytest
import torch
from safetensors.torch import load_file
from support.dues import stop_after
from support.update_runs import data as data
from support.update_runs import train

from batchscale.run.run import Stopped
from batchscale.training import checkpoint as checkpoints
from batchscale.training.due import DUES

LATER = ("evaluation_seconds", "recompute_seconds", "line_lost_steps")
FP16 = (
    "precision=fp16",
    "numerics.micro_batch=8",
    "numerics.threads=1",
    "minibatch.workers=5",
    "minibatch.per_worker=8",
)


def biased(name, averaged, steps):
    """A running average as torch keeps it, with what is left of the initial 0 or 1."""
    left = 0.9**steps
    return (1 - left) * averaged + (left if name.endswith("running_var") else 0.0)


def as_before(checkpoint):
    """The checkpoint as the version of 2026-11-21 wrote it: averages with their bias, S in place of s, fewer totals."""
    tensors = {
        name: biased(name, tensor, checkpoint.step) if "running_" in name else tensor
        for name, tensor in checkpoint.tensors.items()
        if not name.startswith("batch_norm.")
    }
    tensors["loss_scale.value"] = tensors["loss_scale.value"] * 4  # k = 5, rounded down to a power of two
    totals = {name: value for name, value in checkpoint.totals.items() if name not in LATER}
    totals["loss_scales"] = [[step, scale * 4] for step, scale in totals["loss_scales"]]
    identity = {name: value for name, value in checkpoint.identity.items() if "recompute" not in name}
    return dataclasses.replace(checkpoint, tensors=tensors, totals=totals, identity=identity)


def test_a_checkpoint_of_the_version_before_goes_on_with_its_biased_averages_and_its_scale(data, tmp_path, monkeypatch):
    straight = train(data, tmp_path / "straight", *FP16)
    monkeypatch.setitem(DUES, "stop", stop_after(3))
    with pytest.raises(Stopped):
        train(data, tmp_path / "run", *FP16)
    monkeypatch.undo()
    folder = checkpoints.folders(tmp_path / "run")[-1]
    checkpoints.save(tmp_path / "run", as_before(checkpoints.load(folder)))
    resumed = train(data, tmp_path / "run", *FP16, resume="yes")
    assert (resumed.skipped_steps, resumed.loss_scales) == (straight.skipped_steps, straight.loss_scales)
    before, after = (load_file(tmp_path / name / "weights.safetensors") for name in ("straight", "run"))
    for name, tensor in before.items():
        if "running_" in name:
            torch.testing.assert_close(after[name], biased(name, tensor, straight.steps), rtol=1e-5, atol=1e-6)
        else:
            assert torch.equal(after[name], tensor)
