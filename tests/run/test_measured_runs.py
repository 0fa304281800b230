"""Measures of a run while it trains: the numbers of its checkpoints, kept through stops, and no bit of it changed."""

import json

import pytest
import torch
from support.dues import after, stop_after
from support.runs import RECIPE, Dropping
from support.runs import data as data
from support.worlds import in_processes

import batchscale
from batchscale.build.state import open_state
from batchscale.comm import World
from batchscale.errors import RecipeError
from batchscale.measure.measures import MEASURES, measured_line, question_of
from batchscale.records.files import finite
from batchscale.report.page.runs import read_run
from batchscale.report.run_findings import run_findings
from batchscale.run.measuring import LiveMeasures
from batchscale.run.run import Stopped
from batchscale.training.due import DUES

EXACT = "numerics.exact=true"
MEASURE = "execution.measures=[{name: noise-scale, every: 3, options: {examples: 48}}]"
STEPS = [3, 6, 9, 11]


def train(data, out, *overrides, **kwargs):
    return batchscale.train(RECIPE, [EXACT, MEASURE, *overrides], data=data, out=out, quiet=True, **kwargs)


def lines_of(folder):
    """Of measures.jsonl, without the time that each took."""
    lines = [json.loads(line) for line in (folder / "measures.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


@pytest.fixture(scope="module")
def plain(data):
    """A run that nothing measures."""
    return batchscale.train(RECIPE, [EXACT], data=data, quiet=True)


@pytest.fixture(scope="module")
def measured(data, tmp_path_factory):
    """(folder, result) of the same run, measured."""
    folder = tmp_path_factory.mktemp("measured") / "run"
    return folder, train(data, folder, "execution.keep_checkpoints={steps: [3, 6, 9]}")


def test_a_measured_run_has_the_bits_of_one_that_is_not(plain, measured):
    _, result = measured
    assert (result.weights_sha256, result.test_loss) == (plain.weights_sha256, plain.test_loss)


def test_every_line_is_what_the_measure_says_of_the_checkpoint_of_its_step(data, measured):
    folder, _ = measured
    lines = lines_of(folder)
    assert [line["step"] for line in lines] == STEPS
    for line in lines:
        question = question_of("noise-scale")(examples=48)
        assert (line["measure"], line["options"]) == ("noise-scale", {"examples": 48})
        content = measured_line("noise-scale", question, [open_state(folder, line["step"], data=data)])
        assert {name: line[name] for name in content} == content
        assert line["numbers"][0]["value"] == line["result"]["noise_scale"]


def lines_in_process(rank, data, folder):
    result = train(data, folder)
    return result.weights_sha256, lines_of(folder) if rank == 0 else None


@pytest.mark.parametrize("processes", [2, 3])
def test_lines_and_weights_are_the_same_for_every_number_of_processes(data, measured, tmp_path, processes):
    endings = in_processes(processes, lines_in_process, data, tmp_path / "run")
    assert {sha for sha, _ in endings} == {measured[1].weights_sha256}
    assert endings[0][1] == lines_of(measured[0])


@pytest.mark.parametrize("step", [2, 3, 5, 11])
def test_a_stop_and_a_resume_double_no_line_and_lose_none(data, measured, tmp_path, monkeypatch, step):
    monkeypatch.setitem(DUES, "stop", stop_after(step))
    with pytest.raises(Stopped):
        train(data, tmp_path / "run")
    monkeypatch.undo()
    assert train(data, tmp_path / "run", resume="yes").weights_sha256 == measured[1].weights_sha256
    assert lines_of(tmp_path / "run") == lines_of(measured[0])


SMALL = {
    "noise-scale": {"examples": 48},
    "curvature": {"examples": 16, "eigenvalues": 1, "probes": 2, "parts": "0,13"},
    "sharpness": {"examples": 16, "iterations": 2, "subspace": 4, "repeats": 2},
    "landscape": {"examples": 16, "points": 3},
}
ALL = "execution.measures=[" + ", ".join(
    f"{{name: {kind}, options: {json.dumps(SMALL.get(kind, {}))}}}" for kind in MEASURES
) + "]"  # fmt: skip


def all_in_process(rank, data, folder):
    result = train(data, folder, ALL)
    return result.weights_sha256, lines_of(folder) if rank == 0 else None


@pytest.mark.slow
def test_every_measure_there_is_can_be_taken_while_a_run_trains(data, plain, tmp_path):
    """Its line is what it says of the checkpoint, on two processes as on one; the weights are those of no measure."""
    alone = all_in_process(0, data, tmp_path / "run")
    assert alone[0] == plain.weights_sha256
    assert [line["measure"] for line in alone[1]] == list(MEASURES)
    for line in alone[1]:
        question = question_of(line["measure"]).model_validate(line["options"])
        content = measured_line(line["measure"], question, [open_state(tmp_path / "run", data=data)])
        assert line["numbers"] == json.loads(json.dumps(finite(content["numbers"])))
        if line["measure"] != "distance":  # which tells of the checkpoints that there are, too
            assert line["result"] == json.loads(json.dumps(finite(content["result"])))
    sha, lines = in_processes(2, all_in_process, data, tmp_path / "two" / "run")[0]
    assert sha == alone[0]
    assert [line["numbers"] for line in lines] == [line["numbers"] for line in alone[1]]


def broken(*_):
    raise KeyboardInterrupt


def test_lines_beyond_the_last_checkpoint_are_cut_and_taken_again(data, measured, tmp_path, monkeypatch):
    """A kill after step 10: the newest checkpoint is that of the second epoch's last step, 7."""
    monkeypatch.setitem(DUES, "kill", after(10, broken))
    with pytest.raises(KeyboardInterrupt):
        train(data, tmp_path / "run")
    monkeypatch.undo()
    assert [line["step"] for line in lines_of(tmp_path / "run")] == STEPS[:3]
    train(data, tmp_path / "run", resume="yes")
    assert lines_of(tmp_path / "run") == lines_of(measured[0])


def test_a_measure_that_breaks_is_taken_again_at_the_resume(data, measured, tmp_path, monkeypatch):
    monkeypatch.setattr(LiveMeasures, "__call__", broken)
    with pytest.raises(KeyboardInterrupt):
        train(data, tmp_path / "run")
    monkeypatch.undo()
    train(data, tmp_path / "run", resume="yes")
    assert lines_of(tmp_path / "run") == lines_of(measured[0])


def test_ones_own_module_that_draws_random_numbers_is_measured_and_not_changed(data, tmp_path):
    overrides = ["numerics.micro_batch=8", "execution.keep_checkpoints={steps: [3]}"]
    alone = batchscale.train(RECIPE, overrides, data=data, model=Dropping(), quiet=True)
    both = batchscale.train(
        RECIPE, [*overrides, MEASURE], data=data, model=Dropping(), out=tmp_path / "run", quiet=True
    )
    assert both.weights_sha256 == alone.weights_sha256
    line = lines_of(tmp_path / "run")[0]
    state = open_state(tmp_path / "run", 3, data=data, model=Dropping())
    assert line["result"] == measured_line("noise-scale", question_of("noise-scale")(examples=48), [state])["result"]


def test_a_measure_without_a_place_in_the_run_says_so_and_ends_nothing(data, plain, tmp_path):
    asked = "execution.measures=[{name: noise-scale, options: {examples: 5000}}]"
    assert train(data, tmp_path / "run", asked).weights_sha256 == plain.weights_sha256
    (line,) = lines_of(tmp_path / "run")
    assert line["step"] == 11
    assert "--examples=5000: must not exceed the 110 training examples" in line["refused"]
    findings = run_findings(tmp_path / "run", read_run(tmp_path / "run", ""))
    assert any("measure noise-scale was refused: --examples=5000" in warning for warning in findings.warnings)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("{name: noisescale}", r"measures\[0\].name=noisescale: is no measure; did you mean noise-scale"),
        ("{name: noise-scale, options: {example: 9}}", r"options.example: is no option of noise-scale; did you mean"),
        ("{name: noise-scale, options: {examples: 1}}", r"options.examples=1: .*greater than or equal to 2"),
        ("{name: noise-scale, every: 0}", r"measures\[0\].every=0"),
    ],
)
def test_an_entry_that_is_no_measure_is_refused_before_anything_is_written(data, tmp_path, entry, words):
    with pytest.raises(RecipeError, match=words):
        train(data, tmp_path / "run", f"execution.measures=[{entry}]")
    assert not (tmp_path / "run").exists()


def test_the_page_of_the_run_draws_the_numbers_against_epochs(measured):
    folder, _ = measured
    figure = next(
        f for f in run_findings(folder, read_run(folder, "")).figures if f.id.startswith("measure-noise-scale")
    )
    lines = lines_of(folder)
    (series,) = figure.series
    assert figure.y.label == "noise scale, images"
    assert series.x == tuple(line["epoch"] for line in lines)
    assert series.y == tuple(line["result"]["noise_scale"] for line in lines)
    assert list(zip(series.low, series.high, strict=True)) == [tuple(line["result"]["interval"]) for line in lines]


def test_the_processes_of_the_run_share_a_measure(data, monkeypatch):
    worlds = []

    def noting(kind, question, states, world=None):
        worlds.append(world)
        return {"answer": "measured", "numbers": [], "result": {}}

    monkeypatch.setattr("batchscale.run.measuring.measured_line", noting)
    train(data, None)
    assert len(worlds) == len(STEPS)
    assert all(isinstance(world, World) for world in worlds)


def test_random_numbers_and_switches_of_the_process_stay(data, measured, monkeypatch):
    """Between two steps, a measure leaves them as they were."""
    states = []
    call = LiveMeasures.__call__

    def watched(self, entry, step):
        torch.manual_seed(step)
        before = torch.get_rng_state()
        content = call(self, entry, step)
        states.append(torch.equal(before, torch.get_rng_state()))
        return content

    monkeypatch.setattr(LiveMeasures, "__call__", watched)
    train(data, None)
    assert states == [True] * len(STEPS)
