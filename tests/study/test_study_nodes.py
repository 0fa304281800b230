"""Studies on a real Slurm of two nodes: runs that span them, and jobs that somebody else cancels."""

import json
import sys
from pathlib import Path

import pytest
from support.slurm import missing, slurm

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(missing()), reason=f"Slurm's {', '.join(missing())} not on this machine"),
]
_BATCHSCALE = (sys.executable, "-m", "batchscale")


@pytest.fixture(scope="module")
def cluster():
    """One for all tests of this file; its nodes have four cores each."""
    with slurm() as one:
        yield one


def test_a_scaling_study_whose_largest_runs_span_two_nodes(cluster, tmp_path):
    out = tmp_path / "study"
    words = (
        "study", "scaling", "digits-cnn", "minibatch.workers=4", "epochs=1", "learning_rate.decay.kind=none",
        "--processes", "1,2,4", "--mode", "strong", "--seeds", "1", "--out", str(out), "--json", "--launcher", "slurm",
        "--slurm", "ntasks-per-node=2", "--slurm", "partition=all", "--slurm", "time=30",
    )  # fmt: skip
    code, rows, err = cluster.run(*_BATCHSCALE, *words, cwd=tmp_path)
    assert code == 0, err
    document = json.loads(rows)
    measured = document["scaling"]["measured"]
    assert [(row["processes"], row["oversubscribed"]) for row in measured] == [(1, False), (2, False), (4, False)]
    assert [row["nodes"] in (["n1"], ["n2"]) for row in measured[:2]] == [True, True]  # each on one of them
    assert measured[2]["nodes"] == ["n[1-2]"]
    assert [row["status"] for row in document["rows"]] == ["done"] * 3
    runs = [json.loads((out / row["folder"] / "environment.json").read_text()) for row in document["rows"]]
    assert [run["processes"] for run in runs] == [1, 2, 4]
    numbers = json.loads((out / "submitit" / "jobs.json").read_text())
    assert {run["slurm"]["job"] for run in runs} == set(numbers.values())
    findings = json.loads((out / "findings.json").read_text())
    assert findings["tables"][0]["columns"][-1] == "nodes"
    assert "pay on this cluster (1 core and 1 thread a process)" in findings["asked"]
    assert not any("more threads" in warning for warning in findings["warnings"])


def test_a_job_that_somebody_cancels_is_told_and_the_study_goes_on_with_the_others(cluster, tmp_path):
    out = tmp_path / "study"
    words = (
        "study", "grid", "digits-cnn", "--way", "long: epochs=100000", "--way", "short: epochs=1", "--seeds", "1",
        "execution.log_steps=1", "numerics.threads=1", "--jobs", "2", "--launcher", "slurm", "--out", str(out),
    )  # fmt: skip
    study = cluster.begin(*_BATCHSCALE, *words, cwd=tmp_path)
    cluster.wait_until(lambda: len(list(out.glob("runs/*/result.json"))) == 1, 240)
    numbers = json.loads((out / "submitit" / "jobs.json").read_text())
    (run,) = [run for run in out.glob("runs/kn*") if not run.suffix and not (run / "result.json").exists()]
    cluster.wait_until(lambda: (run / "metrics.jsonl").exists(), 240)
    assert cluster.run("scancel", numbers[run.name])[0] == 0
    _, err = study.communicate()
    assert study.returncode == 1, err
    (line,) = [line for line in err.splitlines() if "way long" in line and "failed: " in line]
    assert f"job {numbers[run.name]} was ended by the cluster (CANCELLED)" in line
    assert list(Path(run / "checkpoints").iterdir())  # the next command goes on from there
    cluster.wait_for_jobs(60)  # a run is over with its result; its job's script then still has to end
