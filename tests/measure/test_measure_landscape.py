"""`measure landscape`: planes around runs and lines between them, any W and any pause, closed forms, bad input."""

import dataclasses
import json
import re

import pytest
import torch
from support.runs import RECIPE, train
from support.runs import data as data
from support.worlds import in_world
from torch import nn

import batchscale
from batchscale.build.state import open_state
from batchscale.cli import main
from batchscale.comm import World
from batchscale.errors import UsageError
from batchscale.measure.landscape import points
from batchscale.measure.landscape.answer import answer_of, as_json, barrier
from batchscale.measure.landscape.figures import figures, numbers, tables
from batchscale.measure.landscape.places import Around
from batchscale.measure.landscape.question import Question
from batchscale.measure.landscape.words import sentence, warnings
from batchscale.measure.measures import measured
from batchscale.measure.objective import Objective
from batchscale.report.page import write
from batchscale.task import Classification

SMALL = {"points": 5, "examples": 60, "test_examples": 30}


class NormalisedNet(nn.Module):
    """A convolution, batch norm, a linear layer."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.linear = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Linear(144, 4)

    def forward(self, x):
        return self.linear(torch.relu(self.norm(self.conv(x))).flatten(1))


def normalised_net():
    torch.manual_seed(0)
    return NormalisedNet()


@pytest.fixture(scope="module")
def runs(data, tmp_path_factory):
    """Folders of two runs, of 4 and of 1 worker."""
    root = tmp_path_factory.mktemp("runs")
    for name, workers in (("large", 4), ("small", 1)):
        train(data, root / name, f"minibatch.workers={workers}", "epochs=1", model=normalised_net())
    return root / "large", root / "small"


def states_of(runs, data):
    return [open_state(run, data=data, model=normalised_net()) for run in runs]


def in_processes(world, runs, data, question, folder):
    torch.set_num_threads(1)
    return as_json(answer_of(question, states_of(runs, data), world, folder))


@pytest.mark.parametrize("batch_norm", ["averages", "recomputed"])
def test_a_plane_has_the_numbers_of_a_plain_evaluation(runs, data, batch_norm):
    (state,) = states_of(runs[:1], data)
    answer = answer_of(Question(**SMALL, batch_norm=batch_norm), [state])
    document = as_json(answer)
    assert document["axes"] == [[-1.0, -0.5, 0.0, 0.5, 1.0]] * 2
    around = Around.of(state.model, 0, 2)
    objective = Objective.of(state, 60, 16, batch_norm=batch_norm)
    for i, a in enumerate(document["axes"][0]):
        for j, b in enumerate(document["axes"][1]):
            with objective.at(around.centre + a * around.directions[0] + b * around.directions[1]):
                assert (document["loss"][i][j], document["score"][i][j]) == objective.evaluated()
    assert document["loss"][2][2] == objective.loss()
    if batch_norm == "averages":
        whole = answer_of(Question(points=3, test_examples=40), [state])
        assert whole.landscapes[0].test_loss[4] == pytest.approx(state.evaluate(averaged=False).loss, rel=1e-6)
        assert whole.question.examples == 110


@pytest.mark.parametrize("batch_norm", ["averages", "recomputed"])
def test_both_ends_of_a_line_are_the_runs_themselves(runs, data, batch_norm):
    states = states_of(runs, data)
    question = Question(points=9, examples=60, batch_norm=batch_norm)
    document = as_json(answer_of(question, states))
    assert document["axes"] == [[-0.5, -0.25, 0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5]]
    for place, state in ((2, states[0]), (6, states[1])):
        objective = Objective.of(state, 60, 16, batch_norm=batch_norm)
        assert (document["loss"][place], document["score"][place]) == objective.evaluated()
    assert len(document["test_loss"]) == 9
    assert document["directions"][0]["kind"] == "line"
    assert document["batch_norm"] == batch_norm


def test_a_model_is_what_it_was_after_a_line(runs, data):
    states = states_of(runs, data)
    before = {name: tensor.clone() for name, tensor in states[0].model.state_dict().items()}
    answer_of(Question(**SMALL, batch_norm="recomputed"), states)
    answer_of(Question(**SMALL), states)
    assert all(torch.equal(before[name], tensor) for name, tensor in states[0].model.state_dict().items())


class Squares(Classification):
    """l = |z - y|^2 / 2, y the class's unit vector."""

    name = "squares"

    def train_pass(self, model, inputs, targets):
        outputs = model(inputs)
        wanted = nn.functional.one_hot(targets, outputs.shape[1]).to(outputs.dtype)
        return (outputs - wanted).square().sum() / 2, outputs


def test_the_loss_of_a_quadratic_net_is_its_closed_form(data, tmp_path):
    """f(w + a d1 + b d2) = f + g' x + x' H x / 2,  x = a d1 + b d2, exactly."""
    own = {"data": data, "task": Squares(4)}

    def linear():
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 4))

    batchscale.train(
        RECIPE, ["precision=fp64", "epochs=1", "learning_rate.reference=0.001"], model=linear(), out=tmp_path / "run",
        quiet=True, **own,
    )  # fmt: skip
    state = open_state(tmp_path / "run", model=linear(), **own)
    answer = answer_of(Question(points=7, examples=100, low=-2, high=1), [state])
    around, objective = Around.of(state.model, 0, 2), Objective.of(state, 100, 16)
    loss, gradient = objective.gradient()
    for (a, b), measured_loss in zip(answer.points, answer.landscapes[0].loss, strict=True):
        x = a * around.directions[0] + b * around.directions[1]
        closed = loss + float(gradient @ x) + float(x @ objective.hessian_product(x)) / 2
        assert measured_loss == pytest.approx(closed, rel=1e-11)


@pytest.mark.parametrize("size", [2, 3])
def test_any_number_of_processes_and_any_pause_give_the_same_bits(runs, data, tmp_path, size):
    question = Question(**SMALL)
    alone = as_json(answer_of(question, states_of(runs, data), None, tmp_path / "none"))
    outcomes = in_world(size, in_processes, runs, data, question, tmp_path)
    assert outcomes == [alone] * size
    files = sorted(tmp_path.glob("points-*.jsonl"))
    assert len(files) == size
    cut = files[0].read_bytes().splitlines(keepends=True)
    files[0].write_bytes(b"".join(cut[:1]) + cut[1][:9])  # as if it had been killed there
    assert as_json(answer_of(question, states_of(runs, data), None, tmp_path)) == alone


def test_finished_points_are_not_measured_again(runs, data, tmp_path, monkeypatch):
    measured_at, at = [], points.Judge.at
    monkeypatch.setattr(points.Judge, "at", lambda self, point: measured_at.append(point) or at(self, point))
    question = Question(**SMALL, dimensions=1, form="around")
    first = as_json(answer_of(question, states_of(runs, data), None, tmp_path))
    assert len(measured_at) == 10
    (file,) = tmp_path.glob("points-*.jsonl")
    file.write_bytes(b"\n".join(file.read_bytes().splitlines()[:12]))  # six points
    assert as_json(answer_of(question, states_of(runs, data), None, tmp_path)) == first
    assert len(measured_at) == 14
    for other in ({"seed": 1}, {"examples": 61}, {"batch_norm": "recomputed"}, {"high": 2.0}):
        answer_of(question.model_copy(update=other), states_of(runs, data), None, tmp_path)
    answer_of(question, states_of(runs[::-1], data), None, tmp_path)  # other weights
    assert len(measured_at) == 64
    answer_of(question.model_copy(update={"rise": 0.5}), states_of(runs, data), None, tmp_path)
    assert len(measured_at) == 64


def test_another_chunk_gives_the_same_numbers_to_rounding(runs, data):
    first, second = (
        answer_of(Question(**SMALL, chunk=chunk), states_of(runs[:1], data)).landscapes[0] for chunk in (7, 60)
    )
    assert first.loss == pytest.approx(second.loss, rel=1e-5)
    assert first.score == second.score


def test_several_runs_stand_on_one_scale(runs, data, tmp_path):
    findings = measured("landscape", Question(**SMALL, form="around"), states_of(runs, data), ["x"])
    maps = [figure for figure in findings.figures if figure.id.startswith("loss-map")]
    assert len(findings.figures) == 6
    assert maps[0].surface.limits == maps[1].surface.limits
    lowest = min(value for figure in maps for row in figure.surface.values for value in row)
    assert maps[0].surface.limits[0] == lowest
    column, row = 1, 3  # a = -0.5 along x, b = 0.5 along y
    assert maps[1].surface.values[row][column] == findings.result["runs"][1]["loss"][column][row]
    findings.write(tmp_path)
    page = write(tmp_path).path.read_text()
    assert page.count("along the second direction") > 4


def test_what_a_line_comes_to(runs, data):
    answer = answer_of(Question(points=9, examples=60), states_of(runs, data))
    losses = dict(zip(answer.axes[0], answer.landscapes[0].loss, strict=True))
    heights = {a: losses[a] - (1 - a) * losses[0.0] - a * losses[1.0] for a in (0.0, 0.25, 0.5, 0.75, 1.0)}
    assert barrier(answer, answer.landscapes[0]) == (
        pytest.approx(max(heights.values()), abs=1e-12), max(heights, key=heights.get)
    )  # fmt: skip
    assert re.search(r"large to small: loss [\d.]+ at the first, [\d.]+ at the second", sentence(answer))
    assert [mark.label for mark in figures(answer)[0].marks] == ["large", "small"]
    assert [row[:3] for row in tables(answer)[0].rows] == [("large", 4, 0.0), ("small", 14, 1.0)]


def test_near_is_the_share_of_points_that_rise_by_no_more(runs, data):
    state = states_of(runs[:1], data)
    losses = answer_of(Question(**SMALL), state).landscapes[0].loss
    lower, highest = sorted(loss - losses[12] for loss in losses)[-2:]
    answer = answer_of(Question(**SMALL, rise=(lower + highest) / 2), state)
    (number,) = numbers(answer)
    assert as_json(answer)["runs"][0]["near"] == 24 / 25
    assert (number.value, number.name) == (96.0, "near")
    assert tables(answer)[0].rows[0][-1] == 96.0


def test_a_loss_that_is_not_finite_is_left_empty(runs, data):
    question = Question(points=3, examples=30, dimensions=1, low=-1e30, high=1e30)
    answer = answer_of(question, states_of(runs[:1], data))
    assert as_json(answer)["loss"][0] is None
    assert as_json(answer)["loss"][1] is not None
    assert "not finite" in next(warnings(answer))
    assert figures(answer)[0].series[0].y[0] is None


@pytest.mark.parametrize(
    ("changes", "runs_asked", "words"),
    [
        ({"form": "line"}, 1, "--form=line: leads from one run to another"),
        ({"dimensions": 2}, 2, "--dimensions=2: the line between two runs has one"),
        ({"low": 1.0}, 1, "--low=1: must lie below --high=1"),
        ({"examples": 111}, 1, "--examples=111: must not exceed the 110 training examples"),
        ({"test_examples": 41}, 2, "--test-examples=41: must not exceed the 40 test examples"),
        ({"examples": 5, "batch_norm": "recomputed"}, 1, "hold no pass of n = 8"),
    ],
)
def test_bad_input_is_one_line(runs, data, changes, runs_asked, words):
    with pytest.raises(UsageError, match=re.escape(words)) as caught:
        answer_of(Question(points=3, **changes), states_of(runs[:runs_asked], data))
    assert "\n" not in str(caught.value)


def test_runs_of_different_nets_or_data_have_no_line(runs, data, tmp_path):
    batchscale.train(RECIPE, ["epochs=1"], data=data, out=tmp_path / "cnn", quiet=True)
    states = [*states_of(runs[:1], data), open_state(tmp_path / "cnn", data=data)]
    with pytest.raises(UsageError, match=r"is another net than .*large .*; give two runs of one net"):
        answer_of(Question(), states)
    fewer = dataclasses.replace(data, train_images=data.train_images[:90], train_labels=data.train_labels[:90])
    train(fewer, tmp_path / "fewer", "epochs=1", model=normalised_net())
    states = [*states_of(runs[:1], data), *states_of([tmp_path / "fewer"], fewer)]
    with pytest.raises(UsageError, match=r"trained on other data than .*training images: 110 of the first, 90"):
        answer_of(Question(), states)


def test_runs_of_sets_of_different_sizes_are_measured_over_as_many_examples_of_each(runs, data, tmp_path):
    fewer = dataclasses.replace(
        data, train_images=data.train_images[:90], train_labels=data.train_labels[:90],
        test_images=data.test_images[:24], test_labels=data.test_labels[:24],
    )  # fmt: skip
    train(fewer, tmp_path / "fewer", "epochs=1", model=normalised_net())
    states = [*states_of(runs[:1], data), *states_of([tmp_path / "fewer"], fewer)]
    question = answer_of(Question(points=3, form="around", dimensions=1), states).question
    assert (question.examples, question.test_examples) == (90, 24)


def test_the_command_prints_the_document_and_goes_on_from_its_points(tmp_path, capsys, monkeypatch):
    run = tmp_path / "digits"
    batchscale.train("digits-cnn", ["epochs=1", "numerics.threads=1"], out=run, quiet=True)
    command = ["measure", "landscape", str(run), "--points", "3", "--examples", "200", "--low", "-0.5", "--json"]
    assert main(command) == 0
    document = json.loads(capsys.readouterr().out)
    assert {"axes", "loss", "score", "directions"} <= document.keys()
    assert [len(row) for row in document["loss"]] == [3, 3, 3]
    folder = run / "measures" / f"landscape-{document['step']}"
    assert len(list(folder.glob("points-*.jsonl"))) == 1
    monkeypatch.setattr(points.Judge, "at", None)  # nothing is measured again
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out) == document
    assert main(["report", str(folder)]) == 0


def test_world_of_one_is_the_default(runs, data):
    question = Question(**SMALL, dimensions=1)
    alone = answer_of(question, states_of(runs[:1], data))
    assert answer_of(question, states_of(runs[:1], data), World(device=torch.device("cpu"))) == alone
