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
    known = out / "submitit" / "jobs.json"
    killed.wait_until(lambda: known.exists() and len(json.loads(known.read_text())) == 2 and (jobs / "asked").exists())
    killed.wait_until(lambda: len(list(out.glob("runs/*/metrics.jsonl"))) == 1)
    os.kill(killed.process.pid, signal.SIGKILL)
    killed.process.wait()
    numbers = json.loads(known.read_text())
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


@pytest.mark.slow
def test_a_job_that_the_cluster_kills_is_told_and_the_next_command_goes_on_with_it(tmp_path, start):
    out = tmp_path / "study"
    jobs, environment = fake_slurm(tmp_path / "slurm", os.environ["PATH"])
    words = (
        "study", "grid", "digits-cnn", "--way", "x:", "--seeds", "2", "epochs=40", "execution.log_steps=1",
        "execution.checkpoint_seconds=1", "numerics.threads=1", "--launcher", "slurm", "--out", str(out),
    )  # fmt: skip
    study = start(*words, environment=environment)
    study.wait_until(lambda: any(out.glob("runs/*/checkpoints/step-*")) and (jobs / "1" / "pid").exists())
    (jobs / "1" / "killed").write_text("TIMEOUT\n")
    os.kill(int((jobs / "1" / "pid").read_text()), signal.SIGKILL)
    code, _, err = study.end()
    assert code == 1, err
    assert "failed: job 1 was ended by the cluster (TIMEOUT); the same command goes on with it; see " in err
    assert len(list(out.glob("runs/*/result.json"))) == 1  # the study went on with the other

    again = start(*words, environment=environment)
    assert again.end()[0] == 0
    assert sorted(job.name for job in jobs.glob("[0-9]*")) == ["1", "2", "3"]
    environments = [json.loads(file.read_text()) for file in out.glob("runs/*/environment.json")]
    assert sorted(e["from_step"] > 0 for e in environments) == [False, True]  # from its checkpoint
