"""`measure distance`: |w - w0| of checkpoints and of steps measured in training, its fits, bad input."""

import json
import math
import re
import time

import pytest
from support.runs import data as data
from support.runs import train
from torch import nn

import batchscale
from batchscale.build.state import open_state
from batchscale.cli import main
from batchscale.errors import CheckpointError, UsageError
from batchscale.measure.distance.answer import answer_of, as_json, fitted
from batchscale.measure.distance.question import Question
from batchscale.measure.distance.words import sentence, warnings
from batchscale.measure.measures import measured
from batchscale.training import checkpoint as checkpoints

KEEP = "execution.keep_checkpoints={steps: [1, 2, 5, 9]}"


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("distance") / "run"
    train(data, folder, KEEP, "execution.measures=[{name: distance, every: 3}]")
    return folder


def weights_of(folder, data, step="last"):
    state = open_state(folder, step, data=data)
    return {name: weight.detach().double() for name, weight in state.model.named_parameters()}


def test_distances_are_those_from_a_run_that_does_not_move(run, data, tmp_path):
    train(data, tmp_path / "still", "learning_rate.reference=1e-30", "epochs=1")
    start = weights_of(tmp_path / "still", data)
    document = as_json(answer_of(None, [open_state(run, data=data)]))["runs"][0]
    distances = dict(zip(document["steps"], document["distances"], strict=True))
    assert {1, 2, 3, 5, 6, 9} <= distances.keys()
    for step in (1, 2, 5, 9, document["steps"][-1]):
        end = weights_of(run, data, step)
        squares = sum(float((end[name] - start[name]).square().sum()) for name in start)
        assert distances[step] == pytest.approx(math.sqrt(squares), rel=1e-12)
    norm = math.sqrt(sum(float(weight.square().sum()) for weight in start.values()))
    assert document["initial_norm"] == pytest.approx(norm, rel=1e-12)


def test_a_step_measured_in_training_has_the_number_of_its_checkpoint(run, data):
    lines = [json.loads(line) for line in (run / "measures.jsonl").read_text().splitlines()]
    measured_at = {line["step"]: line["result"]["distance"] for line in lines}
    assert measured_at[9] == as_json(answer_of(None, [open_state(run, 9, data=data)]))["distance"]
    assert lines[0]["numbers"][0]["name"] == "|w - w0|"


def test_a_checkpoint_that_the_run_removes_meanwhile_is_passed_over_and_a_damaged_one_is_not(run, data, monkeypatch):
    expected = as_json(answer_of(None, [open_state(run, data=data)]))
    listed = checkpoints.folders(run)
    monkeypatch.setattr(checkpoints, "folders", lambda out: [run / "checkpoints" / "step-0000000004", *listed])
    assert as_json(answer_of(None, [open_state(run, data=data)])) == expected
    damaged = run / "checkpoints" / "step-0000000004"
    damaged.mkdir()
    try:
        with pytest.raises(CheckpointError):
            answer_of(None, [open_state(run, data=data)])
    finally:
        damaged.rmdir()


def test_what_is_measured_does_not_depend_on_when_a_checkpoint_is_written(data, tmp_path, monkeypatch):
    def late(*arguments):
        time.sleep(0.2)
        save(*arguments)

    save = checkpoints.save
    monkeypatch.setattr(checkpoints, "save", late)
    kept = "execution.keep_checkpoints={steps: [1, 2, 5]}"
    train(data, tmp_path / "run", kept, "execution.measures=[{name: distance, every: 2}]")
    lines = [json.loads(line) for line in (tmp_path / "run/measures.jsonl").read_text().splitlines()]
    steps = {line["step"]: line["result"]["runs"][0]["steps"] for line in lines}
    assert steps[2] == [1, 2]
    assert steps[6] == [1, 2, 4, 5, 6]


def test_fits_find_a_logarithm_and_a_power():
    steps = [1, 3, 10, 100, 2000]
    logarithm = fitted([math.log(t) for t in steps], [0.5 + 0.25 * math.log(t) for t in steps])
    assert (logarithm.slope, logarithm.explained) == pytest.approx((0.25, 1.0))
    power = fitted([math.log(t) for t in steps], [math.log(3 * t**0.5) for t in steps])
    assert (power.slope, power.explained) == pytest.approx((0.5, 1.0))
    bent = fitted(steps, [t**0.5 for t in steps])
    assert 0.5 < bent.explained < 0.99
    assert fitted([1.0, 2.0], [1.0, 2.0]) is None


def test_several_runs_stand_in_one_figure(run, data, tmp_path):
    train(data, tmp_path / "short", "epochs=1")
    states = [open_state(folder, data=data) for folder in (run, tmp_path / "short")]
    findings = measured("distance", Question(), states, ["x"])
    assert [series.name for series in findings.figures[0].series] == ["run (kn = 32)", "short (kn = 32)"]
    answer = answer_of(None, states)
    assert [path.run for path in answer.paths] == ["run", "short"]
    assert re.search("short: distances of (1 step|2 steps) are no curve", next(warnings(answer)))
    assert "R^2" in sentence(answer).split(";")[0]


def test_ones_own_module_is_refused(data, tmp_path):
    def net():
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 4))

    train(data, tmp_path / "own", "epochs=1", model=net())
    with pytest.raises(UsageError, match="nothing says which weights that began with"):
        answer_of(None, [open_state(tmp_path / "own", data=data, model=net())])


def test_the_command_prints_the_document(tmp_path, capsys):
    kept = "execution.keep_checkpoints={steps: [1, 10]}"
    batchscale.train("digits-cnn", ["epochs=1", "numerics.threads=1", kept], out=tmp_path / "run", quiet=True)
    assert main(["measure", "distance", str(tmp_path / "run"), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert {1, 10} <= set(document["runs"][0]["steps"])
    assert document["distance"] == document["runs"][0]["distances"][-1]
    assert main(["report", document["folder"]]) == 0
