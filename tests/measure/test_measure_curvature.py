"""`measure curvature` of whole runs: against the whole Hessian, on 1 and 2 processes, its document, and bad input."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from support.runs import RECIPE
from support.runs import data as data
from support.worlds import endings
from torch import nn

import batchscale
from batchscale.build.state import open_state
from batchscale.cli import main
from batchscale.errors import UsageError
from batchscale.measure.curvature.answer import Answer, PartCurvature, answer_of
from batchscale.measure.curvature.figures import numbers
from batchscale.measure.curvature.question import Question
from batchscale.measure.curvature.spectrum import TopEigenvalues, TraceEstimate
from batchscale.measure.curvature.words import sentence, warnings
from batchscale.measure.objective import Objective
from batchscale.records.findings import read_findings


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 2), nn.Tanh(), nn.Linear(2, 4))


@pytest.fixture(scope="module")
def own(data, tmp_path_factory):
    """A run of a net of 142 weights, and what opens it."""
    folder = tmp_path_factory.mktemp("run") / "own"
    batchscale.train(RECIPE, data=data, model=net(), out=folder, quiet=True)
    return folder, {"data": data, "model": net()}


def test_the_answer_is_that_of_the_whole_hessian(own):
    folder, handed_in = own
    state = open_state(folder, **handed_in)
    objective = Objective.of(state, 110, 16, precision="fp64")
    hessian = objective.hessian_products(torch.eye(objective.size, dtype=torch.float64)).numpy()
    values = np.linalg.eigvalsh(hessian)[::-1]
    question = Question(examples=110, precision="fp64", probes=200, tolerance=1e-8, density=20)
    (row,) = answer_of(question, [state]).rows
    np.testing.assert_allclose(row.eigenvalues.values, values[:3], rtol=1e-6)
    assert row.trace.low <= np.trace(hessian) <= row.trace.high
    assert row.density.x[0] < values[-1] < values[0] < row.density.x[-1]
    assert (row.weights, row.loss) == (142, objective.loss())


def test_a_part_is_its_block_of_the_hessian(own):
    folder, handed_in = own
    state = open_state(folder, **handed_in)
    objective = Objective.of(state, 110, precision="fp64")
    hessian = objective.hessian_products(torch.eye(objective.size, dtype=torch.float64)).numpy()
    parts = answer_of(Question(parts="1,3.bias", precision="fp64", examples=110, tolerance=1e-8), [state]).rows
    for row, block in zip(parts, (hessian[:130, :130], hessian[138:, 138:]), strict=True):
        np.testing.assert_allclose(row.eigenvalues.values, np.linalg.eigvalsh(block)[::-1][:3], rtol=1e-6, atol=1e-9)
    assert [row.part for row in parts] == ["1", "3.bias"]


def test_a_run_whose_loss_is_not_finite_is_refused(own):
    folder, handed_in = own
    state = open_state(folder, **handed_in)
    with torch.no_grad():
        next(state.model.parameters()).fill_(float("nan"))
    with pytest.raises(UsageError, match="own: the loss is nan at these weights: must be finite"):
        answer_of(Question(examples=16), [state])


def test_where_no_eigenvalue_converged_a_line_has_no_number():
    top = TopEigenvalues((), (), False)
    row = PartCurvature("run", 1, None, 9, 0.5, top, None, None, 3)
    answer = Answer((row,), 4, 9, "images", "Hessian", "", 0, "classification")
    assert [number.value for number in numbers(answer)] == [None]
    assert "no eigenvalue converged" in sentence(answer)
    assert "0 eigenvalues came within the tolerance" in next(warnings(answer))


def test_what_a_line_holds_of_a_part_and_what_is_warned_of():
    top, estimate = TopEigenvalues((8.0, 2.0), (0.1, 0.11), True), TraceEstimate(5.0, 4.0, 7.0, 10, 0.9)
    row = PartCurvature("run", 1, "fc", 9, 0.5, top, estimate, None, 3)
    answer = Answer((row,), 4, 9, "images", "Hessian", "", 0, "classification")
    top_number, trace_number = numbers(answer)
    assert (top_number.name, top_number.value, top_number.low) == ("top eigenvalue of fc", 8.0, None)
    assert (trace_number.name, trace_number.value, trace_number.low, trace_number.high) == (
        "trace of fc",
        5.0,
        4.0,
        7.0,
    )
    (warning,) = warnings(answer)
    assert warning.startswith("run, fc: the residual of eigenvalue 2 is above 5 % of it")


def test_runs_of_two_tasks_have_no_scale_in_common():
    states = [SimpleNamespace(run=name, task=SimpleNamespace(name=name)) for name in ("segmentation", "language")]
    with pytest.raises(UsageError, match="language: learns language, and segmentation segmentation"):
        answer_of(Question(), states)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits") / "run"
    batchscale.train("digits-cnn", ["epochs=0.2", "numerics.threads=1"], out=folder, quiet=True)
    return folder


ASKED = ("--examples", "96", "--eigenvalues", "1", "--tolerance", "0.05", "--probes", "2", "--density", "3")


def test_one_document_of_any_number_of_processes_and_its_page(digits, capsys):
    documents = []
    for processes in ("1", "2"):
        out = str(digits.parent / f"by-{processes}")
        assert (
            main(["measure", "curvature", str(digits), *ASKED, "--out", out, "--processes", processes, "--json"]) == 0
        )
        documents.append(json.loads(capsys.readouterr().out) | {"folder": ""})
    assert documents[0] == documents[1]
    assert {"eigenvalues", "trace", "interval", "examples"} <= set(documents[0])
    assert (documents[0]["examples"], documents[0]["batch_norm"]) == (96, "averages")
    assert documents[0]["interval"][0] <= documents[0]["trace"] <= documents[0]["interval"][1]
    assert main(["report", str(digits.parent / "by-2")]) == 0
    page = (digits.parent / "by-2" / "report.html").read_text()
    assert "Largest eigenvalues" in page
    assert "Spectrum" in page


def measured_as(rank, folder, out):
    return main(["measure", "curvature", folder, *ASKED, "--out", out])


def test_processes_of_an_outside_launcher_measure_together(digits, capsys):
    out = digits.parent / "launched"
    assert endings(2, measured_as, str(digits), str(out)) == [0, 0]
    assert main(["measure", "curvature", str(digits), *ASKED, "--out", str(digits.parent / "alone")]) == 0
    assert read_findings(out).result == read_findings(digits.parent / "alone").result


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--examples", "1438"], "--examples=1438: must not exceed the 1437 training examples"),
        (["--parts", "features"], "--parts=features: the net has no such part"),
        (["--parts", "a,,b"], "must be names of parts with commas"),
        (["--step", "4"], "has no checkpoint of this step"),
    ],
)
def test_bad_input_is_one_line(digits, capsys, words, sentence):
    assert main(["measure", "curvature", str(digits), *words]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert sentence in error
