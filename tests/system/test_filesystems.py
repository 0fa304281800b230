"""File systems that lack calls, or refuse to be written."""

import errno
import fcntl
import io
import json
import os
import subprocess
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from support.launching import SMALL
from support.pictures import jpeg, noise
from support.refusing import refusing

from batchscale.cli import main
from batchscale.comm.world.gloo import schedule_gloo_threads
from batchscale.data.folders.pack import write_index
from batchscale.data.folders.packed import PackedEntries
from batchscale.errors import FolderError
from batchscale.records import RunFolder, RunLock
from batchscale.records.files import cannot_write, write_whole
from batchscale.records.folder import check_free
from batchscale.system import disk
from batchscale.training import checkpoint as checkpoints
from batchscale.training.checkpoint import Checkpoint

TINY = (*SMALL, "epochs=1", "execution.log_steps=100", "numerics.threads=1")


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_run_where_the_file_system_lacks_locks_syncs_and_renames(tmp_path, monkeypatch, capsys, number):
    out = tmp_path / "run"
    monkeypatch.setattr("fcntl.flock", refusing(number))
    monkeypatch.setattr(os, "fsync", refusing(errno.EINVAL))
    over = refusing(errno.EPERM, lambda source, target: Path(target).exists(), os.replace)
    monkeypatch.setattr(os, "replace", over)
    assert main(["train", *TINY, "--out", str(out)]) == 0
    err = capsys.readouterr().err
    for message in ("has no locks", "does not sync files", "does not sync folders"):
        assert err.count(message) == 1
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
    with RunLock(tmp_path) as lock:
        lock.discard()
    assert not list(tmp_path.iterdir())
    ended = subprocess.Popen(["true"])
    ended.wait()
    with RunLock(tmp_path):
        holder = json.loads(held.read_text())
    held.write_text(json.dumps({**holder, "pid": ended.pid}))
    RunLock(tmp_path).release()  # that process lives no more
    held.write_text(json.dumps({**holder, "started": "1"}))
    RunLock(tmp_path).release()  # its number is another process's now
    for elsewhere in ({"boot": "another"}, {"names": "pid:[1]"}):
        held.write_text(json.dumps({**holder, "pid": ended.pid, **elsewhere}))
        with pytest.raises(FolderError, match=f"where that has ended, delete {held}"):
            RunLock(tmp_path)
    held.write_text("")
    with pytest.raises(FolderError, match="unknown process"):
        RunLock(tmp_path)
    check_free(tmp_path)  # files of the lock are none of the user's


def test_a_living_holder_whose_start_is_hidden_keeps_its_lock(tmp_path, monkeypatch):
    monkeypatch.setattr("fcntl.flock", refusing(errno.ENOSYS))
    held = tmp_path / ".lock.held"
    with RunLock(tmp_path):
        holder = json.loads(held.read_text())
    held.write_text(json.dumps({**holder, "pid": os.getppid(), "started": "1"}))
    real = Path.read_text
    hidden = refusing(errno.ENOENT, lambda path, *_, **__: path == Path(f"/proc/{os.getppid()}/stat"), real)
    monkeypatch.setattr(Path, "read_text", hidden)  # as with hidepid
    with pytest.raises(FolderError, match=f"process {os.getppid()} on host"):
        RunLock(tmp_path)
    monkeypatch.setattr(os, "kill", refusing(errno.EPERM))
    with pytest.raises(FolderError, match=f"process {os.getppid()} on host"):
        RunLock(tmp_path)
    monkeypatch.setattr(os, "kill", refusing(errno.ESRCH))
    RunLock(tmp_path).release()


def test_a_holder_that_only_waits_for_its_parent_is_dead(tmp_path, monkeypatch):
    monkeypatch.setattr("fcntl.flock", refusing(errno.ENOSYS))
    held = tmp_path / ".lock.held"
    with RunLock(tmp_path):
        holder = json.loads(held.read_text())
    ended = subprocess.Popen(["true"])
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
    held.write_text(json.dumps({**holder, "pid": ended.pid}))
    RunLock(tmp_path).release()
    ended.wait()


def test_a_stand_in_that_could_not_be_written_is_gone(tmp_path, monkeypatch):
    monkeypatch.setattr("fcntl.flock", refusing(errno.ENOSYS))
    with monkeypatch.context() as full:
        full.setattr(json, "dump", refusing(errno.ENOSPC))
        with pytest.raises(FolderError, match="must have room"):
            RunLock(tmp_path)
    assert not (tmp_path / ".lock.held").exists()
    RunLock(tmp_path).release()


@pytest.mark.parametrize("folder_too", [False, True])
def test_a_lock_that_its_holder_removes_is_not_kept_by_who_waited_for_it(tmp_path, monkeypatch, folder_too):
    folder = tmp_path / "run"
    folder.mkdir()
    holder, locks = RunLock(folder), []
    opened, lock_file = threading.Event(), fcntl.flock

    def noting(*arguments):
        opened.set()
        return lock_file(*arguments)

    monkeypatch.setattr(fcntl, "flock", noting)
    waiter = threading.Thread(target=lambda: locks.append(RunLock(folder, wait_seconds=60)))
    waiter.start()
    opened.wait()
    holder.discard()
    if folder_too:
        folder.rmdir()
    holder.release()
    waiter.join()
    with pytest.raises(FolderError, match="another run is writing there"):
        RunLock(folder)
    locks[0].release()


def test_a_lock_that_fails_is_no_other_run(tmp_path, monkeypatch):
    monkeypatch.setattr("fcntl.flock", refusing(errno.EIO))
    with pytest.raises(FolderError, match="cannot be written"):
        RunLock(tmp_path)


def test_a_disk_that_is_full_at_the_start_is_told_with_its_path(tmp_path, monkeypatch, capsys):
    """What waits in the lock file's buffer fails once more as it is closed, and that error had no path."""

    class Full(io.FileIO):
        write = refusing(errno.ENOSPC)

    def opened(*_, **__):
        return io.TextIOWrapper(io.BufferedRandom(Full(tmp_path / "f", "w+")))

    monkeypatch.setattr("batchscale.records.lock.open", opened, raising=False)
    assert main(["train", *TINY, "--out", str(tmp_path / "run")]) == 2
    err = capsys.readouterr().err
    assert f"{tmp_path}/run/.lock: cannot be written (No space left on device): the disk must have room" in err
    assert "--out DIR" in err


def test_a_page_that_cannot_be_written_has_a_way_out_that_exists(tmp_path, monkeypatch, capsys):
    out = tmp_path / "run"
    assert main(["train", *TINY, "--out", str(out)]) == 0
    monkeypatch.setattr(os, "fsync", refusing(errno.EROFS))
    assert main(["report", str(out)]) == 2
    err = capsys.readouterr().err.splitlines()[-1]
    assert err.endswith(f"or copy {out} to where you may write, and report on the copy")
    assert "--out" not in err


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, "must have room; free some"),
        (errno.EDQUOT, "quota"),
        (errno.EROFS, "mounted read-only"),
        (errno.EACCES, "be allowed to write there"),
        (errno.ENAMETOOLONG, "too long"),
        (errno.EIO, "fails; look into the system's log"),
    ],
)
def test_why_a_folder_cannot_be_written_is_told_apart(tmp_path, monkeypatch, number, message):
    path = tmp_path / "file"
    assert message in str(cannot_write(path, OSError(number, os.strerror(number))))
    monkeypatch.setattr(os, "fsync", refusing(number))
    if number != errno.EACCES:  # from fsync: a sandbox, whose fallback is a note
        with pytest.raises(FolderError, match=message):
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


def test_a_file_that_was_written_is_not_said_to_be_none_where_the_old_one_cannot_be_removed(
    tmp_path, monkeypatch, capsys
):
    path = tmp_path / "file"
    path.write_text("old")
    monkeypatch.setattr(os, "replace", refusing(errno.EEXIST))
    monkeypatch.setattr(Path, "unlink", refusing(errno.EIO))
    write_whole(path, b"new")
    assert path.read_text() == "new"
    assert "leaves the old one beside it as .NAME.PID.before.part; then rename it back" in capsys.readouterr().err


def test_a_checkpoint_that_cannot_take_the_place_of_one_leaves_that_one(tmp_path, monkeypatch):
    def checkpoint(number):
        return Checkpoint(3, {"w": torch.tensor(number)}, {}, {}, {})

    def content():
        (folder,) = checkpoints.folders(tmp_path)
        return checkpoints.load(folder).tensors["w"].item()

    checkpoints.save(tmp_path, checkpoint(1.0))
    real = os.rename
    with monkeypatch.context() as failing:
        failing.setattr(os, "rename", refusing(errno.EIO, lambda s, t: Path(s).name == f".part-{os.getpid()}", real))
        with pytest.raises(FolderError, match="cannot be written"):
            checkpoints.save(tmp_path, checkpoint(2.0))
    assert content() == 1.0
    checkpoints.save(tmp_path, checkpoint(3.0))
    assert content() == 3.0
    assert len(list((tmp_path / "checkpoints").iterdir())) == 1


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
    image = jpeg(noise(8, 8))
    (tmp_path / "train.images").write_bytes(image)
    whole, name = np.array([0, len(image)]), np.frombuffer(b"a.JPEG", np.uint8)
    arrays = {"starts": whole, "labels": np.array([0]), "crc32": np.array([zlib.crc32(image)], np.uint32)}
    index = tmp_path / "train.index"
    write_index(index, {"classes": ["a"]}, {**arrays, "name_starts": np.array([0, len(name)]), "names": name})
    monkeypatch.setattr(np, "memmap", refusing(errno.ENODEV))
    assert PackedEntries(index).read(0) == image


def test_without_proc_gloos_threads_stay_as_they_are(monkeypatch):
    monkeypatch.setattr(os, "listdir", refusing(errno.ENOENT))
    schedule_gloo_threads(3)
