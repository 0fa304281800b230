"""Checkpoints written beside the training: a slow disk, a full one, a kill; the same bytes, and one at a time."""

import errno
import os
import signal
import threading

import pytest
import torch
from support.devices import FakeQueue
from support.dues import after, stop_after
from support.refusing import refusing
from support.runs import RECIPE
from support.runs import data as data
from support.worlds import endings

import batchscale
from batchscale.errors import FolderError
from batchscale.records.files import read_lines
from batchscale.run import run as runs
from batchscale.training import checkpoint as checkpoints
from batchscale.training import loop, saving
from batchscale.training.checkpoint import Checkpoint
from batchscale.training.due import DUES
from batchscale.training.saving import Saver, StateFile

SECONDS = 60.0
"""For what must come: a test that would wait for ever fails instead."""


def train(data, out, *overrides, **kwargs):
    return batchscale.train(RECIPE, ["numerics.micro_batch=8", *overrides], data=data, out=out, quiet=True, **kwargs)


def state():
    """One tensor of every type, and of what is not laid out row by row."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 3, 4, 5, generator=generator)
    return {
        "model.w": images.contiguous(memory_format=torch.channels_last),
        "model.tied": images,
        "batch_norm.ü\n": torch.randn(7, generator=generator).expand(3, 7),
        "step": torch.tensor(3),
        "none": torch.zeros(0),
        "flags": torch.tensor([True, False, True]),
        "bytes": torch.arange(5, dtype=torch.uint8),
        "half": torch.randn(3, generator=generator).half(),
        "brain": torch.randn(3, generator=generator).bfloat16(),
        "exact": torch.randn(3, generator=generator, dtype=torch.float64),
        "whole": torch.arange(3, dtype=torch.int32),
    }


def test_the_file_in_memory_is_the_file_that_the_library_writes():
    tensors = state()
    file = StateFile(tensors)
    for _ in range(2):  # the second time over the first one's values
        file.copy(tensors)
        assert bytes(file.content) == checkpoints.to_bytes(tensors)
        tensors = {name: tensor.flip(0) if tensor.dim() else tensor + 1 for name, tensor in tensors.items()}
    assert file.fits(tensors)
    assert not file.fits({**tensors, "step": torch.tensor(3.0)})
    assert not file.fits({**tensors, "more": torch.tensor(3)})


class SlowDisk:
    """Writes nothing before ``go`` is set; how many checkpoints were written at once at most."""

    def __init__(self, monkeypatch):
        self.go, self.reached = threading.Event(), threading.Event()
        self.most = self.writing = 0
        self._save = checkpoints.save
        monkeypatch.setattr(checkpoints, "save", self.save)

    def save(self, *arguments):
        self.writing += 1
        self.most = max(self.most, self.writing)
        self.reached.set()
        assert self.go.wait(SECONDS), "no step was taken while the checkpoint was written"
        self._save(*arguments)
        self.writing -= 1


@pytest.mark.parametrize("exact", [False, True])
def test_steps_go_on_while_a_checkpoint_is_written(data, tmp_path, monkeypatch, exact):
    """Its disk is done only after the second step from there; it holds what was true when it was begun."""
    mode = ("execution.checkpoint_seconds=1000", f"numerics.exact={str(exact).lower()}")
    straight = train(data, tmp_path / "straight", *mode)
    then = {}

    def look(course):
        then["state"], then["totals"] = checkpoints.to_bytes(course.parts.state()), course.totals.as_json()

    def release(course):
        then["saved before"] = checkpoints.steps_saved(tmp_path / "run")
        disk.go.set()

    disk = SlowDisk(monkeypatch)
    monkeypatch.setitem(DUES, "look", after(4, look))  # an epoch's end: a checkpoint
    monkeypatch.setitem(DUES, "release", after(6, release))
    result = train(data, tmp_path / "run", *mode, "execution.keep_checkpoints={steps: [4]}")
    assert result.weights_sha256 == straight.weights_sha256
    assert (then["saved before"], disk.most) == (0, 1)
    folder = checkpoints.folder_of(tmp_path / "run", 4, "step")
    assert (folder / "state.safetensors").read_bytes() == then["state"]
    assert {**checkpoints.load(folder).totals, "wall_seconds": 0} == {**then["totals"], "wall_seconds": 0}


def test_one_checkpoint_is_under_way_at_most_and_the_last_two_stay_with_those_kept(data, tmp_path, monkeypatch):
    disk = SlowDisk(monkeypatch)
    disk.go.set()
    result = train(
        data, tmp_path / "run", "execution.checkpoint_seconds=0", "execution.keep_checkpoints={steps: [2, 5]}"
    )
    saved = [checkpoints.steps_of(folder) for folder in checkpoints.folders(tmp_path / "run")]
    assert saved == [2, 5, result.steps - 1, result.steps]
    assert disk.most == 1


def test_a_checkpoint_is_removed_whole_for_who_looks_from_outside(data, tmp_path, monkeypatch):
    seen, remove = [], checkpoints.shutil.rmtree

    def looked_at(path, **how):
        seen.append([(folder / "manifest.json").exists() for folder in checkpoints.folders(tmp_path / "run")])
        seen.append([path not in checkpoints.folders(tmp_path / "run")])
        remove(path, **how)

    monkeypatch.setattr(checkpoints.shutil, "rmtree", looked_at)
    train(data, tmp_path / "run", "execution.checkpoint_seconds=0")
    assert seen
    assert all(map(all, seen))


@pytest.mark.parametrize("lag", [0, 2])
def test_a_full_disk_ends_the_run_within_a_step_of_it_in_one_line(data, tmp_path, monkeypatch, lag):
    """Not only where the next checkpoint is due; what was written before is there, and the run goes on from it."""
    straight = train(data, tmp_path / "straight")
    monkeypatch.setattr(runs, "Loop", lambda course: loop.Loop(course, lag=lag))
    full = threading.Event()
    fills = refusing(errno.ENOSPC, lambda handle: full.is_set(), os.fsync)
    monkeypatch.setattr(checkpoints, "sync", fills)

    def fill(course):  # before the checkpoint of step 7; that of step 4 is on the disk
        course.saver.wait()
        full.set()

    def ended(course):  # the thread has met the error before step 8 is over
        course.saver._writing.thread.join(SECONDS)

    monkeypatch.setattr(loop, "DUES", {"fill": after(6, fill), **DUES, "ended": after(7, ended)})
    with pytest.raises(FolderError, match=r"No space left on device.*free some") as caught:
        train(data, tmp_path / "run", "execution.checkpoint_seconds=1000")
    assert "\n" not in str(caught.value)
    result = batchscale.records.read_result(tmp_path / "run")
    assert (result.status, result.failure, result.steps) == ("failed", str(caught.value), 8)
    assert checkpoints.steps_saved(tmp_path / "run") == 4
    assert not list((tmp_path / "run" / "checkpoints").glob(".part-*"))
    monkeypatch.undo()
    assert train(data, tmp_path / "run", resume="yes").weights_sha256 == straight.weights_sha256


def stop_at_once(monkeypatch):
    monkeypatch.setattr(runs.StopSignals, "requested", lambda signals: setattr(signals, "received", 15) or True)


def test_a_stop_waits_for_its_checkpoint(data, tmp_path, monkeypatch):
    disk = SlowDisk(monkeypatch)
    stop_at_once(monkeypatch)
    waiting = threading.Thread(target=lambda: disk.reached.wait(SECONDS) and threading.Timer(0.3, disk.go.set).start())
    waiting.start()
    with pytest.raises(runs.Stopped, match="after step 1;"):
        train(data, tmp_path / "run")
    assert checkpoints.steps_saved(tmp_path / "run") == 1


def test_a_stop_whose_checkpoint_cannot_be_written_says_so(data, tmp_path, monkeypatch):
    stop_at_once(monkeypatch)
    monkeypatch.setattr(checkpoints, "sync", refusing(errno.ENOSPC))
    with pytest.raises(FolderError, match="free some"):
        train(data, tmp_path / "run")


def test_an_error_of_a_step_is_told_before_the_writers(data, tmp_path, monkeypatch):
    """Both come at once: the run's own error is the one to tell."""

    def fail(course):
        raise RuntimeError("the run's own")

    monkeypatch.setattr(checkpoints, "sync", refusing(errno.ENOSPC))
    monkeypatch.setattr(loop, "DUES", {**DUES, "fail": after(4, fail)})
    with pytest.raises(RuntimeError, match="the run's own"):
        train(data, tmp_path / "run", "execution.checkpoint_seconds=1000")


def killed_in_mid_write(rank, data, out):
    """SIGKILL while the second checkpoint's state is synced, and the training goes on."""
    left, sync = [3], checkpoints.sync  # two files a checkpoint

    def deadly(handle):
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        sync(handle)

    checkpoints.sync = deadly
    train(data, out, "execution.checkpoint_seconds=1000")


def test_a_kill_in_mid_write_keeps_the_checkpoint_before_and_a_resume_has_the_same_bits(data, tmp_path):
    out = tmp_path / "run"
    assert endings(1, killed_in_mid_write, data, out) == [-signal.SIGKILL]
    assert [checkpoints.steps_of(folder) for folder in checkpoints.folders(out)] == [4]
    assert list((out / "checkpoints").glob(".part-*/state.safetensors"))
    resumed, straight = train(data, out, resume="yes"), train(data, tmp_path / "straight")
    assert resumed.weights_sha256 == straight.weights_sha256
    assert [line["loss"] for line in read_lines(out / "metrics.jsonl")] == [
        line["loss"] for line in read_lines(tmp_path / "straight" / "metrics.jsonl")
    ]
    assert not list((out / "checkpoints").glob(".part-*"))


def test_from_a_device_the_copy_goes_beside_its_work_and_the_thread_waits_for_it(tmp_path, monkeypatch):
    """The device's next work runs behind the copy; the host waits for neither."""
    there, copied_aside = threading.Event(), []
    queue = FakeQueue(there.is_set)
    copy = StateFile.copy
    monkeypatch.setattr(
        saving.StateFile, "copy", lambda file, tensors: (copied_aside.append(queue.is_aside), copy(file, tensors))
    )
    saver = Saver(tmp_path, queue)
    saver.begin(Checkpoint(3, state(), {}, {}, {}), lambda step: False)
    assert (copied_aside, queue.marks, len(queue.followed)) == ([True], 1, 1)
    assert checkpoints.folders(tmp_path) == []
    there.set()
    saver.wait()
    loaded = checkpoints.load(checkpoints.folder_of(tmp_path, 3, "step"))
    assert checkpoints.to_bytes(loaded.tensors) == checkpoints.to_bytes(state())


def test_a_stop_by_what_is_due_leaves_its_checkpoint(data, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "DUES", {**DUES, "stop": stop_after(5)})
    with pytest.raises(runs.Stopped):
        train(data, tmp_path / "run")
    assert checkpoints.steps_saved(tmp_path / "run") == 5
