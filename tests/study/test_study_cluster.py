"""A study on a cluster: killed, it leaves its jobs and takes them up again; stopped, it leaves none."""

import json
import os
import signal

import pytest
from support.fake_slurm import fake_slurm
from support.launching import Started

from batchscale.training import checkpoint as checkpoints

_CLI = (
    "study", "grid", "digits-cnn", "epochs=5000", "execution.log_steps=1", "numerics.threads=1", "--seeds", "2",
    "--jobs", "2", "--launcher", "slurm",
)  # fmt: skip


@pytest.fixture
def start():
    """Starts a command; what it has left behind ends with the test."""
    started = []
    yield lambda *words, **more: started.append(Started(*words, **more)) or started[-1]
    for one in started:
        one.kill_all()
        one.process.communicate()


def test_jobs_of_a_killed_study_are_taken_up_again_and_those_of_a_stopped_one_are_cancelled(tmp_path, start):
    out = tmp_path / "study"
    jobs, environment = fake_slurm(tmp_path / "slurm", os.environ["PATH"])
    (jobs / "hold").write_text("1")  # the first runs, the second waits
    killed = start(*_CLI, "--out", str(out), environment=environment)
    killed.wait_until(lambda: (jobs / "2").exists() and len(list(out.glob("runs/*/metrics.jsonl"))) == 1)
    os.kill(killed.process.pid, signal.SIGKILL)
    killed.process.wait()
    numbers = json.loads((out / "submitit" / "jobs.json").read_text())
    assert sorted(numbers.values()) == ["1", "2"]

    (jobs / "asked").unlink()
    again = start(*_CLI, "--out", str(out), environment=environment)
    again.wait_until(lambda: (jobs / "asked").exists() and (jobs / "asked").read_text().count("\n") > 1)
    os.kill(again.process.pid, signal.SIGTERM)
    code, _, err = again.end()
    assert code == 143, err
    assert "stopped by SIGTERM: 0 of 2 runs finished; go on with: batchscale study grid" in err
    assert sorted(job.name for job in jobs.glob("[0-9]*")) == ["1", "2"]  # none was submitted twice
    assert {(job / "cancelled").exists() for job in jobs.glob("[0-9]*")} == {True}
    (run,) = out.glob("runs/*/metrics.jsonl")
    last = json.loads(run.read_text().splitlines()[-1])["step"]
    assert numbers[run.parent.name] == "1"
    assert checkpoints.newest(run.parent)[0].step == last  # it was asked to stop, and did
    assert json.loads((run.parent / "environment.json").read_text())["earlier"] == []  # one attempt all along
    assert killed.end()[0] == -signal.SIGKILL  # its jobs have left nothing behind
