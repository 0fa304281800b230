"""Awkward shells: closed and full streams, the working folder, left-over variables."""

import contextlib
import errno
import io
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from support.launching import SMALL
from support.worlds import free_port

from batchscale.bench.contender import _environment
from batchscale.cli import main
from batchscale.comm import World
from batchscale.errors import ProcessError
from batchscale.launch import processes as launching
from batchscale.system import disk
from batchscale.system.interpreter import without_working_folder
from batchscale.system.launcher import is_worker
from batchscale.system.streams import Stream

TINY = (*SMALL, "epochs=1", "execution.log_steps=100", "numerics.threads=1")


# Standard streams


@pytest.fixture
def full():
    """Makes streams that have no room."""
    with contextlib.ExitStack() as opened:
        yield lambda: opened.enter_context(open("/dev/full", "w"))


def test_output_that_is_lost_is_an_error_unless_the_results_lie_in_a_folder(tmp_path, monkeypatch, capsys, full):
    monkeypatch.setattr(sys, "stdout", full())
    assert main(["recipes"]) == 1
    assert "standard output: No space left on device: what this command prints is lost" in capsys.readouterr().err
    out = str(tmp_path / "run")
    monkeypatch.setattr(sys, "stdout", full())
    assert main(["train", *TINY, "--out", out]) == 0
    assert f"all of it lies in {out}" in capsys.readouterr().err
    monkeypatch.setattr(sys, "stdout", None)  # as where it was closed
    assert main(["train", *TINY, "--out", out, "--resume"]) == 0
    assert main(["train", *TINY, "--out", out, "--resume", "--json"]) == 1
    assert "standard output: closed: the document of --json is lost" in capsys.readouterr().err
    assert main(["recipes"]) == 1
    assert main(["--version"]) == 1


@pytest.mark.parametrize("closed", [True, False])
def test_progress_that_is_lost_is_no_error_and_never_lands_in_the_document(tmp_path, monkeypatch, full, closed):
    monkeypatch.setattr(sys, "stderr", None if closed else full())
    output = io.StringIO()
    monkeypatch.setattr(sys, "stdout", output)
    out = tmp_path / "run"
    assert main(["train", *TINY, "--out", str(out), "--json"]) == 0
    assert json.loads(output.getvalue()) == json.loads((out / "result.json").read_text())


def shell(command, **environment):
    """(exit code, standard output, standard error) of a command of the shell; PYTHON is the interpreter's -m."""
    base = {name: os.environ[name] for name in ("HOME", "PATH", "LANG") if name in os.environ}
    done = subprocess.run(
        command.replace("PYTHON", f"{sys.executable} -m batchscale"),
        shell=True, capture_output=True, text=True, env={**base, **environment}, timeout=300,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def test_a_reader_that_leaves_is_no_error():
    for command in ("PYTHON recipes | true", "PYTHON --help | true"):
        assert shell(command)[1:] == ("", "")


def test_closed_streams_are_no_files_that_are_opened_next():
    opens = "import os; from batchscale.cli import main; main(['recipes']); os._exit(os.open('/dev/null', 0))"
    assert shell(f'{sys.executable} -c "{opens}" <&- >&- 2>&-')[0] == 3
    code, out, err = shell("PYTHON recipes <&- >&-")
    assert (code, out, err.count("\n")) == (1, "", 1)
    code, out, err = shell("PYTHON recipes --json <&- 2>&-")
    assert (code, bool(json.loads(out)), err) == (0, True, "")


@pytest.mark.slow
@pytest.mark.parametrize("closed", ["<&- 2>&-", "<&- >&- 2>&-", "> /dev/full 2> /dev/full"])
@pytest.mark.parametrize("processes", [1, 2])
def test_a_run_is_done_whatever_streams_are_closed(tmp_path, closed, processes):
    json_ = "--json" if closed == "<&- 2>&-" else ""
    code, out, err = shell(
        f"PYTHON train {' '.join(TINY)} --processes {processes} --out {tmp_path}/run {json_} {closed}"
    )
    assert (code, err) == (0, "")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["status"] == "done"
    assert not json_ or json.loads(out) == result


def test_a_stream_without_a_descriptor_that_fails_leaks_none():
    class Failing(io.StringIO):
        def write(self, text):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    stream, before = Stream(Failing()), os.listdir("/proc/self/fd")
    stream.write("lost")
    assert stream.lost
    assert os.listdir("/proc/self/fd") == before


# The working folder, and what a shell has left over


def test_a_users_module_in_the_working_folder_shadows_no_library(tmp_path, monkeypatch):
    for name in ("random", "json", "signal", "yaml"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the user has this module')\n")
    code, out, err = shell(f"cd {tmp_path} && PYTHON recipes --json")
    assert code == 0, err
    assert json.loads(out)

    class Job:
        processes, threads = 1, 1

    assert _environment(Job(), tmp_path)["PYTHONSAFEPATH"] == "1"


def test_launched_processes_import_nothing_of_the_working_folder(tmp_path, monkeypatch):
    seen, before = {}, dict(os.environ)
    monkeypatch.setattr(
        "torch.distributed.launcher.api.elastic_launch",
        lambda config, program: lambda *arguments: seen.update(os.environ),
    )
    launching.launch(["train"], 2, 0, ["batchscale"], "way on")
    assert seen["PYTHONSAFEPATH"] == "1"
    assert dict(os.environ) == before
    root = Path(launching.__file__).parents[2]
    monkeypatch.chdir(root)  # batchscale itself may be found there alone
    launching.launch(["train"], 2, 0, ["batchscale"], "way on")
    assert seen["PYTHONPATH"].split(os.pathsep)[-1] == str(root)


def test_a_working_folder_that_is_deleted_is_one_line_where_torch_is_loaded(tmp_path, monkeypatch, capsys):
    gone = tmp_path / "gone"
    gone.mkdir()
    with monkeypatch.context() as there:
        there.chdir(gone)
        gone.rmdir()
        assert without_working_folder() == {"PYTHONSAFEPATH": "1"}
        for command in (["train", "digits-cnn", "--processes", "2", "--out", str(tmp_path / "run")], ["demo"]):
            assert main(command) == 2
            err = capsys.readouterr().err
            assert f"{command[0]}: the working folder was deleted" in err
            assert err.count("\n") == 1
    gone.mkdir()
    code, out, err = shell(f"cd {gone} && rmdir {gone} && PYTHON recipes --json")
    assert (code, bool(json.loads(out)), err) == (0, True, "")


@pytest.mark.parametrize(
    ("left", "said"),
    [
        ({"RANK": "0", "WORLD_SIZE": "2"}, "RANK=0, WORLD_SIZE=2: set, but not MASTER_ADDR, MASTER_PORT"),
        ({"WORLD_SIZE": "1"}, "WORLD_SIZE=1: set, but not RANK"),
        (
            {"RANK": "2", "WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1"},
            "RANK=2: must be a whole number below WORLD_SIZE=2",
        ),
        (
            {"RANK": "x", "WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1"},
            "RANK=x: must be a whole number below",
        ),
    ],
)
@pytest.mark.parametrize(
    "command", [["train", "digits-cnn"], ["demo"], ["bench", "step"], ["study", "grid", "digits-cnn"]]
)
def test_variables_of_a_launcher_that_are_left_over_are_named(tmp_path, monkeypatch, capsys, left, said, command):
    monkeypatch.chdir(tmp_path)
    for name, value in left.items():
        monkeypatch.setenv(name, value)
    assert main(command) == 2
    err = capsys.readouterr().err
    assert said in err
    assert f"unset {' '.join(left)}" in err
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_one_of_w_processes_starts_none_and_says_what_told_it_so(tmp_path, monkeypatch, capsys):
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", **meeting}.items():
        monkeypatch.setenv(name, value)
    for command in (["train", "digits-cnn", "--processes", "2"], ["demo"]):
        assert main(command) == 2
        assert "starts its own: use one of the two; if they are left over in this shell: unset RANK" in (
            capsys.readouterr().err
        )
    with pytest.raises(ProcessError, match=r"; as told by RANK=0, WORLD_SIZE=2.*unset RANK"):
        World.connect("cpu", 1.0)
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert not is_worker()  # a world of one, whose parent is a shell that it must not die with
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "job")
    assert is_worker()
    for option in ("--processes=2", "--max-restarts=1"):
        assert main(["train", "digits-cnn", option]) == 2
        assert f"a launcher has started this process, but {option} starts its own" in capsys.readouterr().err


def test_default_folders_of_one_second_do_not_collide(tmp_path, monkeypatch):
    threads = [threading.Thread(target=disk.new_folder, args=(tmp_path / "runs" / "demo-1",)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {f.name for f in (tmp_path / "runs").iterdir()} == {"demo-1", *(f"demo-1-{n}" for n in range(2, 9))}


def test_a_run_without_out_takes_a_folder_of_its_own(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("batchscale.cli.options.time.strftime", lambda *given: "now")
    for _ in range(2):
        assert main(["train", *TINY]) == 0
    assert main(["train", *TINY, "minibatch.workers=0"]) == 2
    assert main(["train", *TINY, "data.holdout=-1"]) == 2
    assert {f.name for f in Path("runs").iterdir()} == {"digits-cnn-now", "digits-cnn-now-2"}
