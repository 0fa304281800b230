"""The choice of threads: the fastest, made by rank 0, kept for a resume, and no trace of its trial in the run."""

import json
import os
from types import SimpleNamespace

import pytest
import torch
from support.clocks import VirtualClock
from support.dues import stop_after
from support.runs import RECIPE, Dropping, train
from support.runs import data as data
from support.worlds import in_world
from torch import nn

from batchscale.build import build as building
from batchscale.build import trial
from batchscale.build.trial import PassTimer
from batchscale.launch import hardware
from batchscale.launch.signals import RUNS_AT_ONCE
from batchscale.recipe import load_recipe, recipe_from
from batchscale.run.run import Stopped
from batchscale.study.runner.cell import Cell
from batchscale.study.runner.study import Study
from batchscale.system.cores import available_cores
from batchscale.training.due import DUES

AUTO = ("numerics.threads=auto", "numerics.micro_batch=16")
_timed, _choose = PassTimer._seconds_per_image, PassTimer.cores_per_thread


def on_cores(monkeypatch, cores, fastest):
    """As many cores, and passes that are run, but said to be the faster the nearer their threads are to the fastest."""

    def seconds(self, groups):
        _timed(self, groups)
        return 1e-3 * (1 + abs(torch.get_num_threads() - fastest))

    def without_a_trace(self, *how):
        random = torch.get_rng_state()
        found = _choose(self, *how)
        assert torch.equal(random, torch.get_rng_state())
        assert all(p.grad is None for p in self._model.parameters())
        return found

    monkeypatch.setattr(PassTimer, "cores_per_thread", without_a_trace)
    monkeypatch.setattr(hardware, "own_cores", lambda: cores)
    monkeypatch.setattr(trial, "_SHORT_SECONDS", 0.0)
    monkeypatch.setattr(PassTimer, "_seconds_per_image", seconds)


def never(*_):
    raise AssertionError("a trial")


def decided(out):
    return json.loads((out / "environment.json").read_text())["decided"]


def stop_at_three(monkeypatch, *arguments):
    with monkeypatch.context() as stop:
        stop.setitem(DUES, "stop", stop_after(3))
        with pytest.raises(Stopped):
            train(*arguments)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("kind", ["norms", "draws"])
def test_the_weights_are_those_of_the_number_chosen(data, tmp_path, monkeypatch, kind, threads):
    """Batch norm's averages, random numbers drawn by a model, and the order of images: as without a trial."""

    drawing = kind == "draws"
    how = (*AUTO, "epochs=1", f"numerics.micro_batch={8 if drawing else 16}")

    def weights(out, *overrides):
        return train(data, out, *how, *overrides, **({"model": Dropping()} if drawing else {})).weights_sha256

    told = weights(tmp_path / "told", f"numerics.threads={threads}")
    on_cores(monkeypatch, 2, threads)
    assert weights(tmp_path / "chosen") == told
    found = decided(tmp_path / "chosen")
    assert (found["threads"], found["cores_per_thread"]) == (threads, 2 // threads)
    assert "cores_per_thread" not in decided(tmp_path / "told")


def test_a_resume_keeps_the_choice(data, tmp_path, monkeypatch):
    on_cores(monkeypatch, 2, 1)
    stop_at_three(monkeypatch, data, tmp_path / "run", *AUTO)
    monkeypatch.setattr(PassTimer, "cores_per_thread", never)
    stop_at_three(monkeypatch, data, tmp_path / "other", *AUTO, "numerics.threads=2")  # told: no trial
    monkeypatch.setattr(hardware, "own_cores", lambda: 8)  # fewer processes on this host: cores a thread hold
    train(data, tmp_path / "run", *AUTO, resume="yes")
    assert (decided(tmp_path / "run")["threads"], decided(tmp_path / "run")["cores_per_thread"]) == (4, 2)


def test_an_exact_run_makes_no_choice(data, tmp_path, monkeypatch):
    monkeypatch.setattr(hardware, "own_cores", lambda: 2)
    monkeypatch.setattr(PassTimer, "cores_per_thread", never)
    train(data, tmp_path / "run", "numerics.exact=true", "numerics.threads=auto", "epochs=1")
    assert decided(tmp_path / "run")["threads"] == 1
    assert "cores_per_thread" not in decided(tmp_path / "run")


def built(world, data, cores):
    """What a rank decides whose own trial says: one thread for so many cores as its rank + 2."""
    hardware.own_cores = lambda: cores[world.rank]
    PassTimer.cores_per_thread = lambda *_: world.rank + 2
    recipe = recipe_from(RECIPE, [*AUTO])
    parts = building.build(recipe, world, data.splits(), own_data=True)
    parts.close()
    return parts.decided.cores_per_thread, parts.decided.threads, torch.get_num_threads()


def test_rank_zero_decides_for_all(data):
    assert in_world(2, built, data, (8, 4)) == [(2, 4, 4), (2, 2, 2)]


def clocked(monkeypatch, seconds):
    """A trial on a clock of its own: (seconds of a pass at so many threads) -> the trial, its passes' threads."""
    clock, passes = VirtualClock(), []

    def timed(self, groups):
        passes.append(torch.get_num_threads())
        clock.now += seconds[passes[-1]]
        return seconds[passes[-1]]

    monkeypatch.setattr(PassTimer, "_seconds_per_image", timed)
    one = (torch.zeros(1, 1), torch.zeros(1, dtype=torch.int64))
    normalizer = SimpleNamespace(device=torch.device("cpu"))
    return PassTimer(nn.Linear(1, 1), None, None, normalizer, one, 1, clock), passes


@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [
        ({8: 0.4, 4: 0.03, 2: 0.02, 1: 0.03}, 4),
        ({8: 0.019, 4: 0.02, 2: 0.03, 1: 0.06}, 2),
        ({8: 0.02, 4: 0.021, 2: 0.022, 1: 0.0229}, 8),  # no clear gain: one
        ({8: 0.02, 4: 0.021, 2: 0.022, 1: 0.0231}, 4),
        ({8: 0.01, 4: 0.02, 2: 0.04, 1: 0.08}, 1),
        ({8: 9.0, 4: 3.0, 2: 1.0, 1: 0.1}, 2),  # slow passes: two are tried
    ],
)
def test_more_threads_are_taken_only_where_they_are_clearly_faster(monkeypatch, seconds, chosen):
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(8)
        found, passes = clocked(monkeypatch, seconds)
        assert found.cores_per_thread(8, range(4), False) == chosen
        assert set(passes) == ({8, 4} if seconds[8] > 1 else {8, 4, 2, 1})
        assert sum(seconds[p] for p in passes) < 3 or passes == [8, 4]
    finally:
        torch.set_num_threads(threads)


def test_the_cores_of_a_process_are_those_that_no_other_one_has(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(24)), raising=False)
    monkeypatch.setattr("batchscale.system.cores.core_quota", lambda _: None)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert hardware.own_cores() == available_cores() == 24
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    monkeypatch.setenv(RUNS_AT_ONCE, "4")
    assert (hardware.own_cores(), available_cores()) == (2, 24)
    monkeypatch.setenv(RUNS_AT_ONCE, "24")
    assert hardware.own_cores() == 1


STEP = {
    "SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "4", "SLURM_LOCALID": "1", "SLURM_NODEID": "0",
    "SLURM_STEP_TASKS_PER_NODE": "4", "LOCAL_WORLD_SIZE": "4", "RANK": "1", "WORLD_SIZE": "4",
}  # fmt: skip


@pytest.mark.parametrize(
    ("affinity", "variables", "cores"),
    [
        (2, {"SLURM_CPUS_ON_NODE": "8"}, 2),  # bound: the task sees its own alone
        (8, {"SLURM_CPUS_ON_NODE": "8"}, 2),  # bound to the job's, all tasks to the same
        (64, {"SLURM_CPUS_ON_NODE": "8"}, 2),  # not bound at all
        (64, {"SLURM_CPUS_ON_NODE": "64", "SLURM_CPUS_PER_TASK": "5"}, 5),  # the node is ours alone
        (1, {"SLURM_CPUS_ON_NODE": "4", "SLURM_CPUS_PER_TASK": "8"}, 1),  # the batch script's, not the step's
        (64, {"SLURM_CPUS_ON_NODE": "4", "SLURM_CPUS_PER_TASK": "8"}, 1),
        (64, {"SLURM_CPUS_ON_NODE": "1"}, 1),  # --overcommit
        (6, {"SLURM_CPUS_PER_TASK": "6", "SLURM_STEP_TASKS_PER_NODE": ""}, 6),
        (64, {}, 16),
        # torchrun below srun, one agent a node: its processes share what that task was given
        (64, {"SLURM_CPUS_ON_NODE": "64", "SLURM_CPUS_PER_TASK": "64", "TORCHELASTIC_RUN_ID": "job"}, 16),
    ],
)
def test_slurm_says_how_many_cores_a_task_has(monkeypatch, affinity, variables, cores):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(affinity)), raising=False)
    monkeypatch.setattr("batchscale.system.cores.core_quota", lambda _: None)
    monkeypatch.setattr(os, "environ", {**STEP, **variables})
    assert hardware.own_cores() == cores


def test_runs_of_a_study_choose_within_their_share(tmp_path):
    cores = hardware.own_cores()
    recipe = ["epochs=0.2", "numerics.threads=auto"]
    for jobs, most in ((1, cores), (cores, 1)):
        with Study(
            tmp_path / str(jobs), "grid", "digits-cnn", load_recipe("digits-cnn", recipe), {}, [], jobs=jobs
        ) as s:
            outcome = s.run([Cell({}, load_recipe("digits-cnn", recipe))])[0]
        assert outcome.status == "done", outcome.error
        found = decided(outcome.folder)
        assert found["threads"] == max(most // found["cores_per_thread"], 1)
        assert jobs == 1 or found["cores_per_thread"] == 1
