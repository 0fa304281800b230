"""A minibatch that grows as the top eigenvalue falls: one run for every W and over stops, its numbers the states'."""

import pytest
import torch
from scipy.sparse.linalg import LinearOperator, eigsh
from support.dues import stop_after
from support.runs import RECIPE
from support.runs import data as data
from support.worlds import in_processes

import batchscale
from batchscale.build.state import open_state
from batchscale.errors import RecipeError
from batchscale.measure.objective import Objective
from batchscale.run.run import Stopped
from batchscale.task import Classification
from batchscale.training.due import DUES

GROWTH = (
    "growth: {kind: curvature, largest: 64, every_examples: 48, delay_steps: 4, falls_by: 1.5, curvature_examples: 48}"
)
GROWING = (f"minibatch={{workers: 3, per_worker: 5, {GROWTH}}}", "epochs=6", "learning_rate.decay.end=6")
EXACT = ("numerics.exact=true",)


def train(data, out, *overrides, **kwargs):
    return batchscale.train(RECIPE, [*GROWING, *overrides], data=data, out=out, quiet=True, **kwargs)


def ending(rank, data, out, overrides, kwargs):
    result = train(data, out, *overrides, **kwargs)
    return result.weights_sha256, result.steps, result.model_dump()["decisions"]


@pytest.fixture(scope="module")
def straight(data, tmp_path_factory):
    """(folder, what the run ends with); the checkpoints of the first decisions stay."""
    out = tmp_path_factory.mktemp("curvature") / "run"
    return out, ending(0, data, out, (*EXACT, "execution.keep_checkpoints={steps: [4, 7, 10, 13]}"), {})


def test_it_grows_where_the_eigenvalue_has_fallen(straight):
    decisions = straight[1][2]
    reference, minibatch, grown = decisions[0]["eigenvalue"], 15, []
    for number, row in enumerate(decisions):
        assert row["reference_eigenvalue"] == reference
        assert row["minibatch"] == minibatch
        assert row["passes"] == (row["eigenvalue"] <= reference / 1.5)
        if row["first_step"] is not None:
            reference, minibatch = row["eigenvalue"], 2 * minibatch
            grown.append(number)
    assert len(grown) == 2  # 15, 30, 60 images: else the test shows nothing
    assert 0 not in grown


@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_the_eigenvalue_is_that_of_the_state_of_the_step(data, straight, number):
    """Beside scipy's Lanczos on the checkpoint: to the tolerance of the power iteration."""
    out, (_, _, decisions) = straight
    row = decisions[number]
    objective = Objective.of(open_state(out, row["step"], data=data), 48)
    operator = LinearOperator(
        (objective.size,) * 2, lambda v: objective.hessian_product(torch.from_numpy(v.reshape(-1))).numpy(), dtype=float
    )
    exact = eigsh(operator, k=1, which="LM", tol=1e-4, return_eigenvectors=False)[0]
    assert row["eigenvalue"] == pytest.approx(exact, rel=0.05)


@pytest.mark.parametrize("processes", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_exact_runs_take_the_same_decisions_to_the_same_bits_for_every_number_of_processes(data, straight, processes):
    assert in_processes(processes, ending, data, None, EXACT, {}) == [straight[1]] * processes


def test_a_stop_at_any_place_of_a_decision_loses_none(data, straight, tmp_path, monkeypatch):
    """Before a decision, at it, and between it and what it changes; the end on two processes."""
    decided = next(row["step"] for row in straight[1][2] if row["first_step"])
    for stop in (decided - 1, decided, decided + 2, decided + 5):
        monkeypatch.setitem(DUES, "stop", stop_after(stop))
        with pytest.raises(Stopped, match=f"after step {stop};"):
            train(data, tmp_path / "run", *EXACT, resume="auto")
        monkeypatch.undo()
    assert in_processes(2, ending, data, tmp_path / "run", EXACT, {"resume": "yes"}) == [straight[1]] * 2


@pytest.mark.slow
def test_decisions_of_fast_runs_are_alike_on_all_processes(data):
    one, two = in_processes(2, ending, data, None, ("numerics.micro_batch=5",), {})
    assert one == two


class WholeWorkers(Classification):
    """A loss that is a whole worker's."""

    unit = "worker"


def test_a_loss_that_is_no_function_of_the_weights_is_refused_before_anything_is_written(data, tmp_path):
    with pytest.raises(RecipeError, match="task=classification: its loss is a whole worker's"):
        train(data, tmp_path / "run", "numerics.micro_batch=5", task=WholeWorkers(4))
    assert not (tmp_path / "run").exists()
