"""Runs that bad files end, and runs that pass over them: what is recorded and kept, what a resume says and does."""

import json
from pathlib import Path

import pytest
from support.dues import after
from support.launching import run
from support.pictures import write_set
from support.worlds import in_processes

import batchscale
from batchscale.cli import main
from batchscale.errors import CheckpointError, DataError
from batchscale.training import checkpoint as checkpoints
from batchscale.training.due import DUES

RECIPE = {
    "data": {"name": "folder", "augment": {"crop": "scale-aspect", "size": 16, "flip": True}},
    "model": {"name": "resnet8"},
    "minibatch": {"workers": 2, "per_worker": 2},
    "epochs": 1,
    "learning_rate": {"reference": 0.1, "reference_minibatch": 256},
    "numerics": {"threads": 1, "micro_batch": 2, "evaluation_chunk": 2},
    "execution": {"device": "cpu", "log_steps": 2},
}
"""Of 36 images: nine steps; nothing is chosen by a trial, so that two runs have the same bits."""


class Killed(BaseException):
    """Stands for SIGKILL: nobody handles it."""


@pytest.fixture
def images(tmp_path):
    return write_set(tmp_path / "images", train=12, val=2)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """The run that nothing befell."""
    root = tmp_path_factory.mktemp("straight")
    return train(write_set(root / "images", train=12, val=2), root / "run")


def train(images, out, *overrides, resume="no"):
    return batchscale.train(RECIPE, overrides, data_folder=images, out=out, resume=resume)


def some(images, part):
    return sorted((images / part).rglob("*.JPEG"))


def lines(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def dying(step):
    """For DUES: after this step the run is killed."""

    def kill(course):
        raise Killed

    return after(step, kill)


def test_a_bad_image_of_the_evaluation_costs_no_training(images, straight, tmp_path, capsys):
    recipe, out, bad = tmp_path / "a.yaml", tmp_path / "run", some(images, "val")[3]
    whole = bad.read_bytes()
    bad.write_bytes(b"")
    recipe.write_text(json.dumps(RECIPE))
    command = ["train", str(recipe), "--data", str(images), "--out", str(out), "--json"]
    assert main(command) == 2
    said = capsys.readouterr()
    told = said.err.splitlines()[-1].removeprefix("batchscale: ")
    assert told.startswith(f"{bad}: ")
    document = json.loads(said.out)
    assert document == json.loads((out / "result.json").read_text())
    assert (document["status"], document["error"], document["steps"], document["epochs"]) == ("failed", told, 9, 1.0)
    assert (document["test_error_percent"], document["weights_sha256"]) == (None, None)
    assert checkpoints.steps_saved(out) == 9
    with pytest.raises(CheckpointError):  # refused: all stays as it was
        train(images, out, "seed=7", resume="yes")
    assert json.loads((out / "result.json").read_text()) == document
    bad.write_bytes(whole)
    with pytest.MonkeyPatch.context() as patch:  # killed between the evaluation and the next checkpoint
        patch.setattr(checkpoints, "save", lambda *_: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            train(images, out, resume="yes")
    assert f"resuming at step 9: it failed: {told}" in capsys.readouterr().err.splitlines()
    assert not (out / "result.json").exists()
    found = train(images, out, resume="yes")
    assert "resuming at step 9" in capsys.readouterr().err.splitlines()
    assert (found.status, found.failure, found.weights_sha256) == ("done", None, straight.weights_sha256)
    assert (found.train_loss, found.test_loss) == (straight.train_loss, straight.test_loss)
    assert lines(out / "evaluations.jsonl") == lines(Path(straight.folder) / "evaluations.jsonl")


def test_a_bad_image_of_a_step_ends_the_run_with_the_steps_before_it_kept(images, straight, tmp_path, capsys):
    out, bad = tmp_path / "run", some(images, "train")[7]
    whole = bad.read_bytes()
    bad.write_bytes(b"")
    with pytest.raises(DataError) as caught:
        train(images, out)
    failed = json.loads((out / "result.json").read_text())
    assert (failed["status"], failed["error"]) == ("failed", str(caught.value))
    assert failed["steps"] == checkpoints.steps_saved(out) > 0
    bad.write_bytes(whole)
    assert train(images, out, resume="yes").weights_sha256 == straight.weights_sha256
    assert f"resuming at step {failed['steps']}: it failed: {failed['error']}" in capsys.readouterr().err


def test_under_another_launcher_the_last_attempt_prints_the_one_document(images, tmp_path):
    recipe, out = tmp_path / "a.yaml", tmp_path / "run"
    some(images, "val")[0].write_bytes(b"")
    recipe.write_text(json.dumps(RECIPE))
    command = ["train", str(recipe), "--data", str(images), "--out", str(out), "--resume=auto", "--json"]
    agent = {
        "RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1", "TORCHELASTIC_RUN_ID": "job",
    }  # fmt: skip
    for attempt in ("0", "1"):
        elastic = {"TORCHELASTIC_RESTART_COUNT": attempt, "TORCHELASTIC_MAX_RESTARTS": "1"}
        code, said, _ = run(*command, environment={**agent, **elastic})
        assert code == 2
        failed = json.loads((out / "result.json").read_text())
        assert said == "" if attempt == "0" else json.loads(said) == failed


def test_a_run_killed_before_its_first_checkpoint_is_not_said_to_have_failed(images, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(DUES, "kill", dying(1))
    with pytest.raises(Killed):
        train(images, tmp_path / "run")
    monkeypatch.undo()
    train(images, tmp_path / "run", resume="yes")
    assert "resuming at step 0: it was killed before its first checkpoint\n" in capsys.readouterr().err


def passing(rank, images, out, kill_after):
    """(status, files named in the result) of a run with data.skip_bad, killed and resumed where told."""
    overrides = ("data.skip_bad=true", "execution.checkpoint_seconds=0")
    if kill_after:
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(DUES, "kill", dying(kill_after))
            with pytest.raises(Killed):
                train(images, out, *overrides)
        return None
    found = train(images, out, *overrides, resume="auto")
    return found.status, found.skipped_files


@pytest.mark.parametrize("processes", [1, 2])
def test_a_killed_and_resumed_run_names_all_files_it_passed_over(images, tmp_path, capsys, processes):
    bad = [*some(images, "train")[::3], some(images, "val")[1]]
    for file in bad:
        file.write_bytes(b"")
    names, out = sorted(map(str, bad)), tmp_path / "run"
    start = (lambda *a: [passing(0, *a)]) if processes == 1 else (lambda *a: in_processes(processes, passing, *a))
    start(images, out, 5)
    before = json.loads((out / "skipped.json").read_text())
    assert len(before) > 3
    assert start(images, out, 0) == [("done", len(bad))] * processes
    assert sorted(json.loads((out / "skipped.json").read_text())) == names
    assert json.loads((out / "result.json").read_text())["skipped_files"] == len(bad)
    if processes == 1:
        last = capsys.readouterr().err.splitlines()[-1]
        assert last == f"passed over: {len(bad)} data files, named in {out / 'skipped.json'}"


def test_where_no_file_was_passed_over_nothing_is_said_of_them(images, tmp_path, capsys):
    assert train(images, tmp_path / "run", "data.skip_bad=true").skipped_files == 0
    assert "passed over" not in capsys.readouterr().err
    assert not (tmp_path / "run" / "skipped.json").exists()
