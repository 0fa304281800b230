"""File systems that lack calls, or refuse to be written."""

import errno
import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from launching import SMALL

from batchscale.cli import main
from batchscale.comm.gloo import schedule_gloo_threads
from batchscale.data import packed
from batchscale.errors import FolderError
from batchscale.records import RunFolder, RunLock
from batchscale.records.files import cannot_write, write_whole
from batchscale.records.folder import check_free
from batchscale.system import disk, notes

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


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_run_where_the_file_system_lacks_locks_syncs_and_renames(tmp_path, monkeypatch, capsys, number):
    out = tmp_path / "run"
    monkeypatch.setattr("fcntl.flock", refusing(number))
    monkeypatch.setattr(os, "fsync", refusing(errno.EINVAL))
    over = refusing(errno.EPERM, lambda source, target: Path(target).exists(), os.replace)
    monkeypatch.setattr(os, "replace", over)
    assert main(["train", *TINY, "--out", str(out)]) == 0
    err = capsys.readouterr().err
    for said in ("has no locks", "does not sync files", "does not sync folders"):
        assert err.count(said) == 1
    (out / "result.json").unlink()  # so that it goes on, and writes over what is there
    assert main(["train", *TINY, "--out", str(out), "--resume"]) == 0
    assert "does not rename over a file" in capsys.readouterr().err
    assert not list(out.glob(".*.part"))
    assert not (out / ".lock.held").exists()


def test_without_locks_one_writer_at_a_time_and_a_dead_one_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr("fcntl.flock", refusing(errno.ENOSYS))
    held = tmp_path / ".lock.held"
    with RunLock(tmp_path), pytest.raises(FolderError, match=rf"process {os.getpid()} on host .*delete {held}"):
        RunLock(tmp_path)
    RunLock(tmp_path).discard()
    assert not list(tmp_path.iterdir())
    ended = subprocess.Popen(["true"])
    ended.wait()
    with RunLock(tmp_path):
        mine = json.loads(held.read_text())
    held.write_text(json.dumps({**mine, "pid": ended.pid}))
    RunLock(tmp_path).release()  # that process lives no more
    held.write_text(json.dumps({**mine, "started": "1"}))
    RunLock(tmp_path).release()  # its number is another process's now
    for elsewhere in ({"boot": "another"}, {"names": "pid:[1]"}):
        held.write_text(json.dumps({**mine, "pid": ended.pid, **elsewhere}))
        with pytest.raises(FolderError, match=f"where that has ended, delete {held}"):
            RunLock(tmp_path)
    held.write_text("")
    with pytest.raises(FolderError, match="unknown process"):
        RunLock(tmp_path)
    check_free(tmp_path)  # files of the lock are none of the user's


def test_a_lock_that_fails_is_no_other_run(tmp_path, monkeypatch):
    monkeypatch.setattr("fcntl.flock", refusing(errno.EIO))
    with pytest.raises(FolderError, match="cannot be written"):
        RunLock(tmp_path)


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "must have room; free some"),
        (errno.EDQUOT, "quota"),
        (errno.EROFS, "mounted read-only"),
        (errno.EACCES, "be allowed to write there"),
        (errno.ENAMETOOLONG, "too long"),
        (errno.EIO, "fails; look into the system's log"),
    ],
)
def test_why_a_folder_cannot_be_written_is_told_apart(tmp_path, monkeypatch, number, said):
    path = tmp_path / "file"
    assert said in str(cannot_write(path, OSError(number, os.strerror(number))))
    monkeypatch.setattr(os, "fsync", refusing(number))
    if number != errno.EACCES:  # from fsync: a sandbox, whose fallback is a note
        with pytest.raises(FolderError, match=said):
            write_whole(path, b"x")


def test_a_file_system_that_renames_over_none_keeps_the_old_file_where_the_new_one_cannot_come(tmp_path, monkeypatch):
    old, new = tmp_path / "file", tmp_path / "new"
    old.write_text("old")
    new.write_text("new")
    monkeypatch.setattr(os, "replace", refusing(errno.EEXIST))
    real = os.rename
    monkeypatch.setattr(os, "rename", refusing(errno.EIO, lambda source, target: source == new, real))
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        disk.replace(new, old)
    assert old.read_text() == "old"
    monkeypatch.setattr(os, "rename", real)
    disk.replace(new, old)
    assert [f.name for f in tmp_path.iterdir()] == ["file"]
    assert old.read_text() == "new"


def test_a_run_that_could_not_begin_leaves_no_run(tmp_path, monkeypatch, capsys):
    def full(folder, environment):
        raise cannot_write(folder.path, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))

    real = RunFolder.write_environment
    monkeypatch.setattr(RunFolder, "write_environment", full)
    arguments = ["train", *TINY, "execution.tensorboard=true", "--out", str(tmp_path / "run")]
    assert main(arguments) == 2
    assert "free some" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    monkeypatch.setattr(RunFolder, "write_environment", real)
    assert main(arguments) == 0


@pytest.mark.parametrize(("kind", "call"), [("hard", "link"), ("symbolic", "symlink")])
def test_where_there_are_no_links_files_are_copied(tmp_path, monkeypatch, kind, call):
    (tmp_path / "a").write_text("content")
    monkeypatch.setattr(os, call, refusing(errno.EPERM))
    disk.lay(tmp_path / "a", tmp_path / "b", kind)
    assert (tmp_path / "b").read_text() == "content"


def test_an_index_is_read_where_no_file_can_be_mapped(tmp_path, monkeypatch):
    (tmp_path / "index").write_bytes(b"abc")
    monkeypatch.setattr(np, "memmap", refusing(errno.ENODEV))
    assert packed._mapped(tmp_path / "index").tobytes() == b"abc"


def test_without_proc_gloos_threads_stay_as_they_are(monkeypatch):
    monkeypatch.setattr(os, "listdir", refusing(errno.ENOENT))
    schedule_gloo_threads(3)
