"""Temporary folders that are long, missing, full, or known by several names."""

import errno
import multiprocessing
import os
import sys
import tempfile
from multiprocessing import forkserver, popen_forkserver
from pathlib import Path

import pytest
from support.refusing import refusing

from batchscale.errors import UsageError
from batchscale.launch.signals import STOPS
from batchscale.study.runner import workers
from batchscale.system.temporary import socket_place, temporary_folder, temporary_place


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
    tempdir = multiprocessing.current_process()._config.get("tempdir")
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
    assert tempdir is None


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


@pytest.mark.parametrize("named", [".", "link"])
def test_a_tmpdir_by_another_name_is_no_other_one(tmp_path, monkeypatch, temporary, capsys, named):
    (tmp_path / "link").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path)
    temporary(named)
    assert Path(temporary_place()).samefile(tmp_path)
    assert capsys.readouterr().err == ""


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
    monkeypatch.setattr(os, "access", lambda *arguments: False)
    with pytest.raises(UsageError, match="too many for the path of a socket"):
        socket_place()
