"""Groups of workers that are normalised together: the same run for every number of processes, more than groups too."""

import json
import shutil

import pytest
import torch
import torch.nn.functional as F
from support.dues import stop_after
from support.runs import Dropping, train
from support.runs import data as data
from support.worlds import in_processes
from torch import nn

from batchscale.errors import RecipeError
from batchscale.run.run import Stopped
from batchscale.training.due import DUES


def spanned(rank, data, overrides):
    result = train(data, None, "minibatch.workers=6", "minibatch.per_worker=4", "batch_norm.span=2", *overrides)
    return result.weights_sha256, result.train_loss, result.test_loss


@pytest.mark.parametrize("running", ["averages", "none"])
def test_groups_of_workers_are_normalised_alike_for_any_number_of_processes(data, running):
    """Six workers of four in groups of two are normalised as three workers of eight, the images in the same order."""
    common = (f"batch_norm.running={running}", "numerics.exact=true")
    alone = spanned(0, data, common)
    for found in in_processes(2, spanned, data, common):
        assert found == alone
    threes = train(data, None, "minibatch.workers=3", *common)
    assert (threes.train_loss, threes.test_loss) == pytest.approx(alone[1:], rel=1e-4)


def test_fast_passes_of_several_groups_are_the_same_run_to_rounding(data):
    common = ("precision=fp64", "batch_norm.span=2", "optimizer.gradient_noise=0.1")
    results = [train(data, None, *common, f"numerics.micro_batch={m}") for m in (16, 32)]
    assert results[0].train_loss == pytest.approx(results[1].train_loss, rel=1e-9)
    assert results[0].test_loss == pytest.approx(results[1].test_loss, rel=1e-9)


def test_spans_that_do_not_fit_are_one_line(data):
    with pytest.raises(RecipeError, match=r"batch_norm.span=3 must divide minibatch.workers=4 .*; use 1"):
        train(data, None, "batch_norm.span=3")
    with pytest.raises(
        RecipeError, match=r"micro_batch=8 must be a multiple of minibatch.per_worker x batch_norm.span=16"
    ):
        train(data, None, "batch_norm.span=2", "numerics.micro_batch=8")
    with pytest.raises(RecipeError, match=r"so it runs one group of workers a pass; use numerics.micro_batch=16"):
        train(data, None, "batch_norm.span=2", "numerics.micro_batch=32", model=Dropping())


class Dense(nn.Module):
    """Every layer sees all that came before it, so gradients of many consumers are added up; and dropout."""

    def __init__(self, drop=0.3):
        super().__init__()
        torch.manual_seed(0)
        self.norms = nn.ModuleList([nn.BatchNorm2d(c) for c in (1, 3, 5, 7)])
        self.convolutions = nn.ModuleList([nn.Conv2d(c, 2, 3, padding=1) for c in (1, 3, 5, 7)])
        self.linear, self.drop = nn.Linear(9, 4), drop

    def forward(self, x):
        for norm, convolution in zip(self.norms, self.convolutions, strict=True):
            x = torch.cat([x, F.dropout(convolution(F.relu(norm(x))), self.drop, self.training)], 1)
        return self.linear(x.amax((2, 3)))


_GROUPS = ("minibatch.workers=6", "minibatch.per_worker=4", "batch_norm.span=3", "epochs=1")


def shared(rank, data, overrides, drop=None):
    result = train(data, None, *_GROUPS, *overrides, model=None if drop is None else Dense(drop))
    return result.weights_sha256, result.train_loss, result.test_loss


@pytest.mark.parametrize("processes", [2, 4, 6])
def test_exact_runs_are_the_same_bits_however_a_group_s_workers_lie(data, processes):
    alone = shared(0, data, ("numerics.exact=true",), 0.3)
    assert in_processes(processes, shared, data, ("numerics.exact=true",), 0.3) == [alone] * processes


@pytest.mark.parametrize(
    "overrides",
    [
        ("precision=bf16",),
        ("precision=fp16",),
        ("optimizer.gradient_noise=0.2", "optimizer.clip_norm=0.5"),
        ("batch_norm.running=recomputed",),
        ("minibatch.growth={kind: phases, phases: [{epoch: 0.5, workers: 12}]}",),  # 2 groups on 5 processes, then 4
    ],
)
def test_exact_runs_of_every_kind_are_the_same_bits(data, overrides):
    exact = ("numerics.exact=true", *overrides)
    assert in_processes(5, shared, data, exact) == [shared(0, data, exact)] * 5


@pytest.mark.parametrize("drop", [0.0, 0.3])
def test_fast_runs_are_the_same_to_rounding(data, drop):
    """Without random draws a pass holds all of a group that is here; with them, which are a worker's, one worker."""
    alone = shared(0, data, ("precision=fp64",), drop)
    for outcome in in_processes(4, shared, data, ("precision=fp64",), drop):
        assert outcome[1:] == pytest.approx(alone[1:], rel=1e-9)


def resumed(rank, data, out):
    return train(data, out, *_GROUPS, "numerics.exact=true", resume="yes").weights_sha256


def test_a_run_on_one_process_goes_on_where_groups_lie_on_several(data, tmp_path, monkeypatch):
    whole = shared(0, data, ("numerics.exact=true",))
    monkeypatch.setitem(DUES, "stop", stop_after(2))
    with pytest.raises(Stopped):
        train(data, tmp_path / "run", *_GROUPS, "numerics.exact=true")
    monkeypatch.undo()
    shutil.copytree(tmp_path / "run", tmp_path / "again")
    assert in_processes(4, resumed, data, tmp_path / "run") == [whole[0]] * 4
    assert json.loads((tmp_path / "run" / "result.json").read_text())["processes"] == 4
    assert resumed(0, data, tmp_path / "again") == whole[0]


def test_compiled_passes_do_not_wait_for_each_other(data, tmp_path):
    with pytest.raises(
        RecipeError, match=r"numerics.compile=true with batch_norm.span=3: .*use numerics.compile=false"
    ):
        train(data, tmp_path / "run", *_GROUPS, "numerics.exact=true", "numerics.compile=true")
