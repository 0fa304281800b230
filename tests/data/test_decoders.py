"""Processes that decode: the pixels of threads, bit for bit; a dead one is replaced; none is left behind."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.datafiles import refused
from support.pictures import jpeg, noise, photographs, write_set
from support.processes import decoders, descendants, soon

from batchscale.cli import main
from batchscale.data import Reading, open_dataset
from batchscale.data.augmentation import Augmentation
from batchscale.data.folders import decoders as decoders_module
from batchscale.system import notes

SIZE, AUGMENTED = 64, Augmentation(flip=True, scale_aspect=True)
CLASS = "n01440764"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """36 pictures of all kinds that can be read, and 24 to evaluate."""
    root = write_set(tmp_path_factory.mktemp("set"), train=12, val=8)
    for number, (image, kind) in enumerate(zip(photographs(4), ["4:2:0", "4:4:4", "progressive", "grey"], strict=True)):
        (root / "train" / CLASS / f"{CLASS}_{number}.JPEG").write_bytes(jpeg(image, kind))
    noise(70, 50, 1).save(root / "train" / CLASS / f"{CLASS}_x.png")
    noise(70, 50, 2).convert("CMYK").save(root / "train" / CLASS / f"{CLASS}_y.jpg")
    Image.fromarray(np.arange(3000, dtype=np.uint16).reshape(50, 60)).save(root / "train" / CLASS / f"{CLASS}_z.png")
    return root


def opened(folder, decoders="processes", threads=2, skip_bad=False):
    return open_dataset("folder", folder, Reading(SIZE, skip_bad=skip_bad, threads=threads, decoders=decoders))


def minibatch(part, images=None):
    images = np.arange(len(part)) if images is None else images
    return part.augmented(7, AUGMENTED)(np.full(len(images), 3), images)


def same(left, right):
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


def test_the_pixels_are_those_of_threads_whatever_their_number(folder):
    by_threads, earlier, others = opened(folder, "threads"), decoders(), descendants(os.getpid())
    images = np.random.default_rng(0).permutation(np.tile(np.arange(len(by_threads.train)), 2))
    for number in (1, 3):
        data = opened(folder, threads=number)
        assert decoders() <= earlier  # none before there is something to decode
        pixels = minibatch(data.train, images)
        assert same(pixels, minibatch(by_threads.train, images))
        assert pixels[0].stride() == minibatch(by_threads.train, images)[0].stride()
        assert len(decoders() - earlier) == number  # of both parts
        assert same(data.test.readable(slice(2, 24)), by_threads.test.readable(slice(2, 24)))
        assert same(data.train.part(slice(3, 30)), by_threads.train.part(slice(3, 30)))
        few = data.train.select(np.array([5, 1, 30]))
        assert same(minibatch(few), minibatch(by_threads.train.select(np.array([5, 1, 30]))))
        assert len(decoders() - earlier) == number
        del data, few
        gc.collect()
        assert soon(lambda: descendants(os.getpid()) <= others)  # with what has forked them


def test_the_packed_form_is_read_by_each_process_for_itself(folder, tmp_path):
    packed = tmp_path / "packed"
    assert main(["data", "prepare", "folder", "--data", str(folder), "--out", str(packed)]) == 0
    earlier = decoders()
    data, by_threads = opened(packed), opened(packed, "threads")
    assert same(minibatch(data.train), minibatch(by_threads.train))
    assert len(decoders() - earlier) == 2
    with open(packed / "train.images", "r+b") as file:  # the CRC-32 is another
        file.seek(100)
        byte = file.read(1)
        file.seek(100)
        file.write(bytes([byte[0] ^ 1]))
    lines = []
    for part in (data.train, by_threads.train):
        with refused("altered since it was packed") as caught:
            minibatch(part)
        lines.append(str(caught.value))
    assert lines[0] == lines[1]


def test_a_bad_file_is_named_or_passed_over_as_by_threads(folder, tmp_path):
    root = write_set(tmp_path, train=6, val=1)
    bad = root / "train" / CLASS / f"{CLASS}_3.JPEG"
    bad.write_bytes(bad.read_bytes()[:500])
    (root / "train" / "n02119789" / "n02119789_5.JPEG").write_bytes(b"")
    lines, earlier = [], decoders()
    for who in ("threads", "processes"):
        with refused(f"{CLASS}_3.JPEG", "data.skip_bad=true") as caught:
            minibatch(opened(root, who).train, np.array([0, 3, 5]))
        lines.append(str(caught.value))
    assert lines[0] == lines[1]
    data, by_threads = (opened(root, who, skip_bad=True).train for who in ("processes", "threads"))
    assert same(minibatch(data), minibatch(by_threads))
    assert len(decoders() - earlier) >= 2
    assert list(data.skipped()) == list(by_threads.skipped())
    assert len(data.skipped()) == 2


def test_a_killed_process_costs_no_pixel_and_one_note(folder, capfd, monkeypatch):
    monkeypatch.setattr(notes, "_noted", set())
    earlier = decoders()
    data, by_threads = opened(folder).train, minibatch(opened(folder, "threads").train)
    assert same(minibatch(data), by_threads)
    first, second = sorted(decoders() - earlier)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        os.kill(first, number)  # what stops a run may reach all its processes, and the run still needs its images
    assert same(minibatch(data), by_threads)
    assert {first, second} <= decoders()
    os.kill(first, signal.SIGKILL)
    assert same(minibatch(data), by_threads)
    assert soon(lambda: first not in decoders())
    assert same(minibatch(data), by_threads)
    os.kill(second, signal.SIGKILL)
    assert same(minibatch(data), by_threads)
    assert capfd.readouterr().err.count("has died") == 1
    assert soon(lambda: not decoders() & {first, second})


def test_where_there_is_no_memory_to_share_threads_decode(folder, capfd, monkeypatch):
    monkeypatch.setattr(notes, "_noted", set())

    def refuse(name):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(decoders_module, "memory_file", refuse)
    earlier = decoders()
    assert same(minibatch(opened(folder).train), minibatch(opened(folder, "threads").train))
    assert decoders() <= earlier
    assert "note: images are decoded by threads" in capfd.readouterr().err


HOLDER = """
import sys, time
import numpy as np
from batchscale.data import Reading, open_dataset
from batchscale.data.augmentation import Augmentation
data = open_dataset("folder", sys.argv[1], Reading(32, threads=2, decoders="processes"))
data.train.augmented(1, Augmentation())(np.zeros(40, int), np.arange(40) % len(data.train))
print("ready", flush=True)
while True:
    time.sleep(0.05)
"""


def test_killed_with_the_process_that_trains_and_nothing_is_left(folder):
    shared = set(Path("/dev/shm").iterdir()) if Path("/dev/shm").is_dir() else set()
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"ready\n"
    started = descendants(holder.pid)
    assert len(decoders(holder.pid)) == 2
    assert len(started) == 3  # and the one that has forked them
    holder.kill()
    holder.wait()
    holder.stdout.close()
    assert soon(lambda: not any(Path(f"/proc/{number}/cmdline").exists() for number in started))
    if Path("/dev/shm").is_dir():
        assert not [path for path in set(Path("/dev/shm").iterdir()) - shared if "batchscale" in path.name]
