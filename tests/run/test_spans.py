"""Groups of workers that are normalised together: the same run for every number of processes, more than groups too."""

import json
import re
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F
from support.dues import stop_after
from support.runs import Dropping, train
from support.runs import data as data
from support.worlds import in_processes
from torch import nn
from torch.utils.checkpoint import checkpoint

from batchscale.errors import ProcessError, RecipeError
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


@pytest.mark.parametrize(("drop", "processes"), [(0.0, 4), (0.3, 2)])
def test_fast_runs_are_the_same_to_rounding(data, drop, processes):
    alone = shared(0, data, ("precision=fp64",), drop)
    for outcome in in_processes(processes, shared, data, ("precision=fp64",), drop):
        assert outcome[1:] == pytest.approx(alone[1:], rel=1e-9)


def refusal(rank, data, overrides, drop=None):
    try:
        return str(shared(rank, data, overrides, drop))
    except RecipeError as error:
        return str(error)


def test_numbers_drawn_for_a_whole_group_are_not_drawn_for_a_part(data):
    line = (
        "4 processes (WORLD_SIZE=4) with batch_norm.span=3: the model draws random numbers, in fast mode for a whole "
        "group at once, and 6 workers have 2 groups; use --exact (numbers drawn for each worker), or at most 2 "
        "processes"
    )
    assert in_processes(4, refusal, data, (), 0.3) == [line] * 4


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


def test_an_exact_run_of_a_version_with_a_pass_a_group_is_not_gone_on_with(data, tmp_path, monkeypatch):
    monkeypatch.setitem(DUES, "stop", stop_after(2))
    with pytest.raises(Stopped):
        train(data, tmp_path / "run", *_GROUPS, "numerics.exact=true")
    monkeypatch.undo()
    file = tmp_path / "run" / "environment.json"
    record = json.loads(file.read_text())
    assert record["decided"].pop("lanes") is True
    file.write_text(json.dumps(record))
    with pytest.raises(RecipeError, match=r"begun by an earlier version, .*go on with numerics.exact=false, or train"):
        train(data, tmp_path / "run", *_GROUPS, "numerics.exact=true", resume="yes")


class Keeps(nn.Module):
    """Hands something on past a batch norm by keeping it on itself."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm, self.last = nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Linear(8, 4)

    def forward(self, x):
        self.skip = {"of the first": [self.first(x.flatten(1))]}
        return self.last(self.norm(self.skip["of the first"][0]) + self.skip["of the first"][0])


class Listed(nn.Module):
    """Uses a parameter through a list."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.norm, self.last = nn.BatchNorm2d(1), nn.Linear(64, 4)
        self.weights = [self.last.weight]

    def forward(self, x):
        return F.linear(self.norm(x).flatten(1), self.weights[0])


class Recomputed(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.norm, self.last = nn.BatchNorm2d(1), nn.Linear(64, 4)

    def forward(self, x):
        x = checkpoint(lambda y: self.norm(y).tanh(), x.requires_grad_(), use_reentrant=False)
        return self.last(x.flatten(1))


class Threaded(Recomputed):
    def forward(self, x):
        with ThreadPoolExecutor(1) as pool:
            return self.last(pool.submit(self.norm, x).result().flatten(1))


class Tied(nn.Module):
    """Two layers of one weight, and one that trains nothing: no reason to refuse."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm, self.second = nn.Linear(64, 64), nn.BatchNorm1d(64), nn.Linear(64, 64)
        self.second.weight = self.first.weight
        self.last = nn.Linear(64, 4).requires_grad_(False)

    def forward(self, x):
        return self.last(self.second(F.relu(self.norm(self.first(x.flatten(1))))))


def awkward(rank, data, model):
    try:
        return train(data, None, *_GROUPS, "numerics.exact=true", model=model()).weights_sha256
    except RecipeError as error:
        return str(error)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Keeps, r"the model keeps tensors on itself in its forward pass \(skip\)"),
        (Listed, r"the parameter 'last.weight' is used past the module that holds it"),
        (Recomputed, r"a batch norm runs again in the backward pass|runs twice in one forward pass"),
        (Threaded, r"a batch norm runs in a thread of the model's own"),
        (Tied, r"^[0-9a-f]{64}$"),
    ],
)
def test_awkward_models_are_the_same_bits_or_one_line(data, model, message):
    alone = awkward(0, data, model)
    assert re.search(message, alone)
    if model is Tied:
        assert in_processes(6, awkward, data, model) == [alone] * 6


def test_compiled_passes_do_not_wait_for_each_other(data, tmp_path):
    with pytest.raises(
        RecipeError, match=r"numerics.compile=true with batch_norm.span=3: .*use numerics.compile=false"
    ):
        train(data, tmp_path / "run", *_GROUPS, "numerics.exact=true", "numerics.compile=true")


class LeavesOut(nn.Module):
    """Leaves a batch norm out by chance."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.norm, self.by_chance, self.last = nn.BatchNorm2d(1), nn.BatchNorm2d(1), nn.Linear(64, 4)

    def forward(self, x):
        x = self.norm(x)
        if torch.rand(()) < 0.5:
            x = self.by_chance(x)
        return self.last(x.flatten(1))


def left_out(rank, data):
    bounds = ("execution.startup_seconds=20", "execution.timeout_seconds=20")  # six of them may start on one core
    try:
        train(data, None, *_GROUPS, "numerics.exact=true", *bounds, model=LeavesOut())
    except (ProcessError, RecipeError) as error:
        return str(error)


def test_workers_that_leave_a_batch_norm_out_are_told_on_one_process(data):
    assert "its workers run other batch norms than each other" in left_out(0, data)


@pytest.mark.slow
def test_workers_that_leave_a_batch_norm_out_are_told_on_several_processes(data):
    """In time, and by the names of the exchanges that the others are in."""
    lines = in_processes(6, left_out, data)
    assert any(re.search(r"batch norm \d, 1 channels", line) for line in lines), lines
