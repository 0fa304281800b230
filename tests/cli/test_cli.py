"""The command line: documents, exit codes, and every mistake one line that loses nothing."""

import contextlib
import io
import json
import os
import resource

import pytest
from support.commands import refused
from support.dues import first
from support.launching import SMALL, Started, result, run
from support.worlds import in_processes

import batchscale
from batchscale.cli import main
from batchscale.training import checkpoint as checkpoints
from batchscale.training import loop


def test_help_teaches(capsys):
    for arguments in (["--help"], ["train", "--help"]):
        with pytest.raises(SystemExit) as leaving:
            main(arguments)
        assert leaving.value.code == 0
        assert "k workers of n images" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"batchscale {batchscale.__version__}\n"


@pytest.mark.parametrize(
    ("given", "set_to"), [({}, "10000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None)]
)
def test_openmp_spins_less_long_unless_told_otherwise(capsys, monkeypatch, given, set_to):
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert main(["recipes"]) == 0
    assert os.environ.get("GOMP_SPINCOUNT") == set_to


def test_recipes(capsys):
    assert main(["recipes"]) == 0
    assert "digits-cnn" in capsys.readouterr().out
    assert main(["recipes", "show", "digits-cnn"]) == 0
    assert capsys.readouterr().out.startswith("# ")
    assert main(["recipes", "show", "digits-cnn", "--json"]) == 0
    shown = capsys.readouterr().out
    assert json.loads(shown)["recipe"]["minibatch"]["per_worker"] == 32
    assert main(["recipes", "digits-cnn", "--json"]) == 0
    assert capsys.readouterr().out == shown
    for words in (["show", "digit-cnn"], ["digit-cnn"]):
        assert "did you mean digits-cnn" in refused(capsys, "recipes", *words)
    assert "must be one NAME" in refused(capsys, "recipes", "digits-cnn", "mnist-cnn")
    assert "needs a NAME" in refused(capsys, "recipes", "show")
    assert "`recipes list` takes no name" in refused(capsys, "recipes", "list", "digits-cnn")


def test_train_writes_one_document(tmp_path, capsys):
    found = result("train", *SMALL, "--out", str(tmp_path / "run"))
    wanted = {
        "status", "test_error_percent", "test_error_median_last_5", "test_loss", "train_loss", "steps", "epochs",
        "images_per_second", "wall_seconds", "weights_sha256", "processes", "workers", "per_worker",
    }  # fmt: skip
    assert wanted <= set(found)
    assert found == json.loads((tmp_path / "run" / "result.json").read_text())
    again = ["train", *SMALL, "--out", str(tmp_path / "run"), "--resume"]
    assert main(again) == 0
    assert "was finished before" in capsys.readouterr().out
    assert main([*again, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == found


def test_progress_goes_to_standard_error_as_plain_lines_with_formulas(tmp_path):
    code, out, err = run("train", *SMALL, "--processes", "2", "--out", str(tmp_path / "run"))
    assert code == 0
    assert out.startswith("done: test error")
    assert "kn = workers x per_worker = 6 x 16" in err
    assert "= 96 images" in err
    assert "epoch 2" in err
    assert "\r" not in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "digits-cnn", "minibatch.workers=0"], "minibatch.workers=0"),
        (["train", "digits-cnn", "minibatch.workes=2"], "nearest known entry is minibatch.workers"),
        (["train", "no-such-recipe"], "neither a file nor a shipped recipe"),
        (["train", "digits-cnn", "--processes", "2"], "--processes=2: must not exceed minibatch.workers=1"),
        (["train", "digits-cnn", "--processes", "0"], "whole number of at least 1"),
        (["train", "digits-cnn", "--processes", "two"], "whole number of at least 1"),
        (["train", "digits-cnn", "minibatch.workers=100"], "must not exceed the 1437 training images"),
        (["train", "digits-cnn", "--resume"], "--resume: which run?"),
        (["train", "digits-cnn", "--data", "/no/such/folder"], "is not a folder"),
        (["train", "digits-cnn", "--nonsense"], "unrecognized arguments: --nonsense; see batchscale train --help"),
        (
            ["study", "grid", "digits-cnn", "--way", "a: epochs=1", "--trials", "1"],
            "batchscale study grid: unrecognized arguments: --trials 1; see batchscale study grid --help",
        ),
        (["demo", "epochs=1"], "batchscale demo: unrecognized arguments: epochs=1; see batchscale demo --help"),
        (["--nonsense", "recipes"], "batchscale recipes: unrecognized arguments: --nonsense"),
        (["train", "digits-cnn", "--exact", "precision=fp64"], "precision=fp64"),
        (["train", "digits-cnn", "model.name=own"], "stands for a module handed in from Python"),
        (["train", "digits-cnn", "data.name=own"], "stands for a data set handed in from Python"),
        (["train", "digits-cnn", "execution.device=cuda"], "has no GPU"),
        (["compare", "/no/a", "/no/b"], "holds no run"),
        (["data", "check", "imagnet"], "imagnet"),
        (["nonsense"], "invalid choice: 'nonsense'"),
        ([], "required: COMMAND"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line_and_exit_code_2(capsys, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    assert said in refused(capsys, *arguments)
    assert list(tmp_path.iterdir()) == []  # nothing was begun


def test_missing_data_lists_files_checksums_and_folder(capsys, tmp_path):
    line = refused(capsys, "train", "mnist-cnn", "--data", str(tmp_path), "--out", str(tmp_path / "run"))
    for word in ("train-images-idx3-ubyte.gz", "f68b3c2dcbeaaa9fbdd348bbdeb94873", str(tmp_path), "data prepare mnist"):
        assert word in line
    assert not (tmp_path / "run").exists()


def test_debug_shows_the_traceback(capsys):
    assert main(["train", "digits-cnn", "minibatch.workers=0", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_a_folder_that_cannot_be_made(capsys):
    line = refused(capsys, "train", *SMALL, "--out", "/proc/batchscale-run")
    assert "another --out DIR" in line


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to a read-only folder")
def test_a_read_only_folder(capsys, tmp_path):
    tmp_path.chmod(0o555)
    assert "is not writable" in refused(capsys, "train", *SMALL, "--out", str(tmp_path / "run"))


def test_a_folder_locked_by_a_living_run(tmp_path, capsys):
    out = tmp_path / "run"
    started = Started("train", *SMALL, "epochs=5000", "--out", str(out))
    started.wait_for_step(out, 2)
    line = refused(capsys, "train", *SMALL, "epochs=5000", "--out", str(out), "--resume")
    assert f"process {started.process.pid} on host" in line
    started.kill_all()
    started.end()


def filling(rank, arguments):
    """(exit code, standard error) of a command on whose disk nothing over 20 kB can be written from step 3 on."""
    for name in ("RANK", "WORLD_SIZE"):
        del os.environ[name]  # one process that no launcher has started
    loop.DUES = first(
        lambda course: course.steps_done == 4,
        lambda course: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)),
    )
    with contextlib.redirect_stderr(io.StringIO()) as err:
        return main(arguments), err.getvalue()


def test_a_disk_that_fills_up_loses_nothing(tmp_path, monkeypatch):
    """A limit on the size of files stands for a full disk: the run ends in one line, its checkpoints stay whole."""
    out = tmp_path / "run"
    command = ["train", *SMALL, "execution.checkpoint_seconds=0", "--out", str(out)]
    ((code, err),) = in_processes(1, filling, command)
    assert code == 2
    assert "cannot be written" in err.strip().splitlines()[-1]
    assert "Traceback" not in err
    assert checkpoints.newest(out)[1] == []
    step = checkpoints.newest(out)[0].step
    assert step == 3
    assert not list((out / "checkpoints").glob(".part-*"))
    assert main([*command, "--resume"]) == 0


def test_compare_and_its_exit_codes(tmp_path, capsys):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        assert main(["train", *SMALL, f"seed={seed}", "epochs=1", "--exact", "--out", str(tmp_path / name)]) == 0
    capsys.readouterr()
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["equal"] is True
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "c")]) == 1
    assert "the first differing step is 1 " in capsys.readouterr().out
    (tmp_path / "c" / "metrics.jsonl").write_text("")
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "c")]) == 1
    assert capsys.readouterr().out.startswith("no step is recorded in both runs\n")


def test_diverged_is_a_result_and_exit_code_1(tmp_path, capsys):
    wild = ("learning_rate.reference=1e30", "learning_rate.warmup.kind=none")
    assert main(["train", *SMALL, *wild, "--out", str(tmp_path / "run"), "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["status"] == "diverged"
    assert document["diverged_at_step"] is not None


def test_a_run_that_stopped_at_its_goal_says_so(tmp_path, capsys):
    for number, (goal, ending) in enumerate(
        {
            "execution.stop_at={score: error, below: 101}": "done, stopped at its goal: test error",
            "execution.stop_below.error_percent=100.5": "done, stopped at its goal: test error",
            "execution.stop_below.error_percent=1e-9": "done: test error",
        }.items()
    ):
        words = ["train", *SMALL, "epochs=2", goal, "--out", str(tmp_path / str(number))]
        assert main(words) == 0
        assert ending in capsys.readouterr().out
    assert main([*words[:-3], "execution.stop_below.loss=1000", *words[-2:-1], str(tmp_path / "0"), "--resume"]) == 0
    assert "was finished before, stopped at its goal: test error" in capsys.readouterr().out


def test_a_benchmark_does_not_go_on_with_a_run(tmp_path, capsys):
    (tmp_path / "recipe.yaml").write_text("epochs: 1")
    line = refused(capsys, "bench", "allreduce", "--out", str(tmp_path))
    assert "holds a run, not a benchmark; give another --out DIR (nothing was changed)" in line
    assert "--resume" not in line
    assert [file.name for file in tmp_path.iterdir()] == ["recipe.yaml"]
