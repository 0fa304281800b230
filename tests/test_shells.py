"""Awkward shells: closed and full streams, temporary folders, the working folder, left-over variables."""

import contextlib
import errno
import io
import json
import multiprocessing
import os
import socket
import subprocess
import sys
import tempfile
import threading
from multiprocessing import forkserver, popen_forkserver
from pathlib import Path

import pytest
from launching import SMALL

from batchscale.bench.contender import _environment
from batchscale.cli import main
from batchscale.comm import World
from batchscale.engine import launch as launching
from batchscale.engine.signals import STOPS
from batchscale.errors import ProcessError, UsageError
from batchscale.study import workers
from batchscale.system import disk, notes
from batchscale.system.launcher import is_worker
from batchscale.system.temporary import socket_place, temporary_folder, temporary_place

TINY = (*SMALL, "epochs=1", "execution.log_steps=100", "numerics.threads=1")


@pytest.fixture(autouse=True)
def _afresh(monkeypatch):
    monkeypatch.setattr(notes, "_noted", set())
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)


def refusing(number, only=lambda *given: True, otherwise=None):
    """A system call that answers with this error."""

    def call(*given, **named):
        if only(*given):
            raise OSError(number, os.strerror(number))
        return otherwise(*given, **named)

    return call


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


# Temporary folders


@pytest.fixture
def temporary(monkeypatch):
    """Set TMPDIR, as it is read at the beginning of a process."""

    def set_to(folder):
        monkeypatch.setenv("TMPDIR", str(folder))
        monkeypatch.setattr(tempfile, "tempdir", None)

    return set_to


@pytest.fixture
def server(monkeypatch):
    """A fork server of its own, that imports nothing before it is asked to."""
    server = forkserver.ForkServer()
    server.set_forkserver_preload([])
    for module in (forkserver, popen_forkserver.forkserver):
        monkeypatch.setattr(module, "ensure_running", server.ensure_running)
        monkeypatch.setattr(module, "connect_to_new_process", server.connect_to_new_process)
    monkeypatch.setattr(workers._CONTEXT, "set_forkserver_preload", lambda modules: None)
    monkeypatch.delitem(multiprocessing.current_process()._config, "tempdir", raising=False)
    yield server
    server._stop()


def test_a_fork_server_starts_with_a_long_tmpdir_hears_no_stop_and_imports_nothing_of_the_working_folder(
    tmp_path, monkeypatch, temporary, server
):
    long = tmp_path / ("long" * 25)
    long.mkdir()
    temporary(long)
    for name in ("random", "selectors", "struct"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the user has this module')\n")
    monkeypatch.chdir(tmp_path)
    before = multiprocessing.current_process()._config.get("tempdir")
    workers.warm()
    assert len(server._forkserver_address) < 100
    blocked = next(
        int(line.split()[1], 16)
        for line in Path(f"/proc/{server._forkserver_pid}/status").read_text().splitlines()
        if line.startswith("SigBlk")
    )
    assert all(blocked >> (number - 1) & 1 for number in STOPS)
    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if folder])
    process = workers._CONTEXT.Process(target=os._exit, args=(7,))
    process.start()
    process.join(60)
    assert process.exitcode == 7
    assert before is None


def test_a_tmpdir_that_is_not_there_is_one_line(tmp_path, capsys, temporary, monkeypatch):
    temporary(tmp_path / "nothing")
    for _ in range(2):
        assert temporary_place() != str(tmp_path / "nothing")
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert f"TMPDIR={tmp_path / 'nothing'}: cannot be used (No such file or directory)" in err
    monkeypatch.setattr(tempfile, "gettempdir", refusing(errno.ENOENT))
    with pytest.raises(UsageError, match=r"TMPDIR=.*no folder for temporary files can be written"):
        temporary_place()


def test_a_tmpdir_that_is_full_is_one_line(tmp_path, monkeypatch, temporary):
    temporary(tmp_path)
    monkeypatch.setattr(tempfile, "mkdtemp", refusing(errno.ENOSPC))
    with pytest.raises(UsageError, match=f"TMPDIR={tmp_path}: cannot be used .No space left on device"):
        temporary_folder("x")


def test_sockets_of_a_long_tmpdir_lie_elsewhere(tmp_path, monkeypatch, temporary):
    long = tmp_path / ("long" * 20)
    long.mkdir()
    temporary(long)
    assert socket_place() in ("/tmp", "/var/tmp", "/dev/shm")
    monkeypatch.setattr(os, "access", lambda *given: False)
    with pytest.raises(UsageError, match="too many for the path of a socket"):
        socket_place()


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
    seen = {}
    monkeypatch.setattr(
        "torch.distributed.launcher.api.elastic_launch",
        lambda config, program: lambda *arguments: seen.update(os.environ),
    )
    launching.launch(["train"], 2, 0, ["batchscale"], "way on")
    assert seen["PYTHONSAFEPATH"] == "1"
    assert "PYTHONSAFEPATH" not in os.environ or os.environ["PYTHONSAFEPATH"]
    root = Path(launching.__file__).parents[2]
    monkeypatch.chdir(root)  # batchscale itself may be found there alone
    launching.launch(["train"], 2, 0, ["batchscale"], "way on")
    assert seen["PYTHONPATH"].split(os.pathsep)[-1] == str(root)


@pytest.mark.parametrize(
    ("left", "said"),
    [
        ({"RANK": "0", "WORLD_SIZE": "2"}, "RANK=0, WORLD_SIZE=2: set, but not MASTER_ADDR, MASTER_PORT"),
        ({"WORLD_SIZE": "1"}, "WORLD_SIZE=1: set, but not RANK"),
        ({"RANK": "2", "WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1"}, "RANK from 0 to WORLD_SIZE - 1"),
        ({"RANK": "x", "WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1"}, "must be whole numbers"),
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
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}.items():
        monkeypatch.setenv(name, value)
    for command in (["train", "digits-cnn", "--processes", "2"], ["demo"]):
        assert main(command) == 2
        assert "starts its own; if they are left over in this shell: unset RANK" in capsys.readouterr().err
    with pytest.raises(ProcessError, match=r"; as told by RANK=0, WORLD_SIZE=2.*unset RANK"):
        World.connect("cpu", 1.0)
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert not is_worker()  # a world of one, whose parent is a shell that it must not die with
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "job")
    assert is_worker()


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
