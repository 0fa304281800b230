"""Deterministic algorithms: the layer without one is named before the first step, and the switches come back."""

import os

import pytest
import torch
from support.runs import RECIPE
from support.runs import data as data
from torch import nn

import batchscale
from batchscale.build import build as building
from batchscale.build.deterministic import switches_kept, use_deterministic_algorithms
from batchscale.build.probe import Probe
from batchscale.errors import ExactnessError, RecipeError
from batchscale.training.step import TrainingStep

CUDA = torch.device("cuda")
EXACT = ("numerics.exact=true", "epochs=1")


class Unordered(torch.autograd.Function):
    """The identity; forward or backward calls an operation that has no deterministic form on a CPU either."""

    @staticmethod
    def forward(ctx, x, where):
        ctx.where = where
        return _unordered(x) if where == "forward" else x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return _unordered(gradient) if ctx.where == "backward" else gradient, None


def _unordered(x):
    return x.clone().put_(torch.tensor([0]), x.flatten()[:1], accumulate=False)


class Layer(nn.Module):
    """Two layers with the operation before, between or behind them."""

    def __init__(self, place, where):
        super().__init__()
        self.first, self.second, self.place, self.where = nn.Linear(64, 64), nn.Linear(64, 64), place, where

    def forward(self, x):
        for place, layer in enumerate((self.first, self.second, nn.Identity())):
            x = layer(Unordered.apply(x, self.where) if place == self.place else x)
        return x


class Net(nn.Module):
    """The layer lies deep inside; operations in place stand around it, as in every residual net."""

    def __init__(self, place=1, where="backward"):
        super().__init__()
        torch.manual_seed(0)
        self.flat = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(inplace=True))
        self.deep = nn.ModuleDict(
            {"block": nn.Sequential(nn.Linear(64, 64), nn.ReLU(inplace=True), Layer(place, where))}
        )
        self.norm, self.last = nn.BatchNorm1d(64), nn.Linear(64, 4)

    def forward(self, x):
        return self.last(self.norm(self.deep["block"](self.flat(x))).relu_())


@pytest.fixture
def deterministic(monkeypatch):
    """Exact mode as on a GPU: the switches that it turns there."""
    monkeypatch.setattr(building, "use_deterministic_algorithms", lambda device: use_deterministic_algorithms(CUDA))


def switches():
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.utils.deterministic.fill_uninitialized_memory,
        torch.backends.cudnn.benchmark,
        os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
    )


def train(data, *overrides, **kwargs):
    return batchscale.train(RECIPE, [*EXACT, *overrides], data=data, quiet=True, **kwargs)


@pytest.mark.parametrize("where", ["forward", "backward"])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_the_layer_without_a_deterministic_form_is_named(data, deterministic, monkeypatch, place, where):
    """It is the layer whose own operation it is, not one of those inside it that stand before or behind."""
    monkeypatch.setattr(TrainingStep, "__call__", None)  # no step is taken
    with pytest.raises(ExactnessError, match=r"model layer 'deep.block.2' \(Layer\): put_ has no deterministic form"):
        train(data, model=Net(place, where))


def test_an_operation_outside_of_all_layers_is_told_as_such(data, deterministic):
    class Outer(Net):
        def forward(self, x):
            return Unordered.apply(super().forward(x), "backward")

    with pytest.raises(ExactnessError, match=r"^model: put_ has no deterministic form"):
        train(data, model=Outer(where="nowhere"))


def test_without_deterministic_algorithms_nothing_is_refused_and_nothing_costs_more(data, monkeypatch):
    monkeypatch.setattr(Probe, "check_whole_pass", None)
    assert train(data, model=Net()).status == "done"


def test_the_whole_trial_pass_leaves_no_trace(data, deterministic, monkeypatch):
    """The bits are those of a run without it; so are they with the GPU's switches, and with tensors left unfilled."""

    class Dropping(Net):
        def forward(self, x):
            return nn.functional.dropout(super().forward(x), 0.3, self.training)

    with monkeypatch.context() as plain:
        plain.setattr(building, "use_deterministic_algorithms", lambda device: None)
        straight = [train(data, model=model(where="nowhere")).weights_sha256 for model in (Net, Dropping)]
    assert [train(data, model=model(where="nowhere")).weights_sha256 for model in (Net, Dropping)] == straight


class Failing(Net):
    """Fails once it trains; the trial passes are two."""

    def __init__(self):
        super().__init__(where="nowhere")
        self.passes = 0

    def forward(self, x):
        self.passes += 1
        if self.passes > 3:
            raise ArithmeticError("in a step")
        return super().forward(x)


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("ending", ["done", "refused", "failed"])
def test_the_switches_of_the_users_process_come_back(data, deterministic, monkeypatch, own, ending):
    """Those that train turns, however a run ends; whether they were on or off."""
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    turned = []
    step = TrainingStep.__call__
    monkeypatch.setattr(TrainingStep, "__call__", lambda *how: turned.append(switches()) or step(*how))
    model, error = {
        "done": (Net(where="nowhere"), None),
        "refused": (Net(), ExactnessError),
        "failed": (Failing(), ArithmeticError),
    }[ending]
    with switches_kept():
        if own:
            monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
            torch.use_deterministic_algorithms(True, warn_only=True)
            torch.backends.cudnn.benchmark = True
        before = switches()
        if error is None:
            train(data, model=model)
        else:
            with pytest.raises(error):
                train(data, model=model)
        assert switches() == before
    workspace = ":16:8" if own else ":4096:8"
    assert set(turned) == (set() if ending == "refused" else {(True, False, False, False, workspace)})


def test_a_pass_that_does_not_fit_is_told_with_the_way_out(data, deterministic):
    """Where a whole pass is tried: forward may fit alone."""

    class Hungry(Net):
        def forward(self, x):
            if torch.is_grad_enabled():
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB.")
            return super().forward(x)

    with pytest.raises(RecipeError, match=r"per_worker=8: a pass of 8 .* does not fit into memory \(CUDA out"):
        train(data, model=Hungry(where="nowhere"))
