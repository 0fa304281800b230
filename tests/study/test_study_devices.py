"""Runs of a study on one machine's GPUs: each has its own while there are enough, and shares evenly where not."""

import collections
import os
import random
from pathlib import Path

import pytest
import torch

from batchscale.recipe import load_recipe
from batchscale.study.runner import workers
from batchscale.study.runner.devices import DevicePool, visible_devices
from batchscale.study.runner.work import Work
from batchscale.study.runner.workers import LocalLauncher

MIG = ("MIG-0a", "MIG-0b", "MIG-0c")


@pytest.fixture
def gpus(monkeypatch):
    """Makes torch count so many GPUs, of those that are listed."""

    def there_are(count, listed=None):
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if listed is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)

    return there_are


class StandIn:
    """An attempt without a process: what it would find set, and its end."""

    def __init__(self, work, jobs, devices, end):
        self.devices, self.end = devices, end


def works(count, processes=1, device="auto"):
    recipe = load_recipe("digits-cnn", [f"execution.device={device}"])
    return [Work("digits-cnn", recipe, Path("nowhere"), None, processes) for _ in range(count)]


@pytest.mark.parametrize(
    ("count", "listed", "names"),
    [
        (0, None, ()),
        (3, None, ("0", "1", "2")),
        (2, "5,3", ("5", "3")),
        (2, " GPU-8f6c , GPU-19a2 ", ("GPU-8f6c", "GPU-19a2")),
        (1, "2,-1,3", ("2",)),  # CUDA's list ends at what it does not know
        (1, ",".join(MIG), MIG),  # a process counts one of them, whatever is listed
        (0, ",".join(MIG), ()),
        (0, "", ()),
    ],
)
def test_the_gpus_at_hand_by_the_names_that_cuda_takes(gpus, count, listed, names):
    gpus(count, listed)
    assert visible_devices() == names


def test_eight_runs_on_four_gpus_are_two_on_each_however_they_end(gpus, monkeypatch):
    gpus(4)
    monkeypatch.setattr(workers, "LocalAttempt", StandIn)
    lines, chance = [], random.Random(0)
    launcher = LocalLauncher(lines.append)
    assert launcher.prepare(works(50), 8) == 8
    assert lines == ["8 runs at once on 4 GPUs: up to 2 share one; --jobs 4 gives each its own"]
    running = [launcher.start(work) for work in works(8)]
    for work in works(42):
        assert collections.Counter(r.devices for r in running) == {(name,): 2 for name in "0123"}
        running.pop(chance.randrange(8)).end()
        running.append(launcher.start(work))


def test_a_run_of_several_processes_takes_as_many_and_one_on_the_cpu_none(gpus, monkeypatch):
    gpus(4, "7,5,3,1")
    monkeypatch.setattr(workers, "LocalAttempt", StandIn)
    lines = []
    launcher = LocalLauncher(lines.append)
    assert launcher.prepare(works(2, 2), None) == 2
    assert lines == ["2 runs at once on 4 GPUs, 2 each (--jobs)"]
    (one, two), (cpu,) = (map(launcher.start, works(2, 2))), map(launcher.start, works(1, 2, "cpu"))
    assert (one.devices, two.devices, cpu.devices) == (("7", "5"), ("3", "1"), ())
    one.end()
    assert launcher.start(works(1, 2)[0]).devices == ("7", "5")
    assert launcher.start(works(1, 8)[0]).devices == ()  # too few: the run itself says so, or takes the CPU


def test_where_there_is_no_gpu_nothing_is_counted_or_said(gpus):
    gpus(0)
    lines = []
    launcher = LocalLauncher(lines.append)
    assert [launcher.prepare(works(8), jobs) for jobs in (None, 8)] == [1, 8]
    gpus(4)
    assert [launcher.prepare(works(8, device="cpu"), jobs) for jobs in (None, 8)] == [1, 8]
    assert [launcher.prepare(works(8, 8), jobs) for jobs in (None, 8)] == [1, 8]
    assert not lines
    assert DevicePool(()).take(1) == ()


def test_jobs_by_default_are_one_a_gpu(gpus):
    lines = []
    launcher = LocalLauncher(lines.append)
    gpus(4)
    assert [launcher.prepare(works(count), None) for count in (1, 3, 9)] == [1, 3, 4]
    assert lines == ["3 runs at once on 4 GPUs, one each (--jobs)", "4 runs at once on 4 GPUs, one each (--jobs)"]
    assert [launcher.prepare(works(9, processes), None) for processes in (2, 3, 4, 8)] == [2, 1, 1, 1]
    assert launcher.prepare(works(9), 1) == 1


def test_a_run_finds_its_device_set_before_it_begins(gpus, monkeypatch):
    gpus(2, "GPU-b,GPU-a")
    monkeypatch.setattr(workers._CONTEXT, "Process", lambda target, args: Unstarted(args[1]))
    launcher = LocalLauncher()
    launcher.prepare(works(2), 2)
    attempts = [launcher.start(work) for work in works(2)]
    assert [a._process.environment["CUDA_VISIBLE_DEVICES"] for a in attempts] == ["GPU-b", "GPU-a"]
    assert attempts[1].ended().startswith("ended with exit code 1")  # and gives its device back
    assert launcher.start(works(1)[0])._process.environment["CUDA_VISIBLE_DEVICES"] == "GPU-a"
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-b,GPU-a"  # the study's own stays


class Unstarted:
    """A process that is never started, and has ended."""

    exitcode = 1

    def __init__(self, environment):
        self.environment = environment

    def start(self):
        """Nothing."""

    join = start

    def is_alive(self):
        """No."""
        return False
