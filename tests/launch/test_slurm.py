"""Runs and studies below a real Slurm of two nodes, and below real mpiruns."""

import contextlib
import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest
from support.pages import ROOT
from support.slurm import missing, slurm
from support.worlds import free_port, trained

from batchscale.system.cluster import cluster_task

pytestmark = pytest.mark.slow
WORDS = ("digits-cnn", "minibatch.workers=8", "epochs=3", "--exact")
REFUSED = "starts its own: use one of the two; if they are left over in this shell: unset SLURM_PROCID SLURM_STEP_NUM_"


@pytest.fixture
def cluster():
    """A Slurm for this test alone."""
    if missing():
        pytest.skip(f"no Slurm: {', '.join(missing())} not installed (Debian: slurmctld slurmd slurm-client munge)")
    with slurm() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """sha256 of the weights of WORDS on one process."""
    overrides = ("minibatch.workers=8", "epochs=3", "numerics.exact=true")
    return trained(0, WORDS[0], overrides, None, tmp_path_factory.mktemp("alone") / "run")["weights_sha256"]


def result_in(folder):
    return json.loads((folder / "result.json").read_text())


def test_the_tasks_of_a_step_are_one_run(cluster, tmp_path, alone):
    train = ("srun", "-N2", "-n4", "--overcommit", "batchscale", "train", *WORDS)
    code, out, err = cluster.run(*train, "--out", "run", cwd=tmp_path)
    assert code == 0, err
    assert out.count("\n") == 1
    assert (result_in(tmp_path / "run")["processes"], result_in(tmp_path / "run")["weights_sha256"]) == (4, alone)
    decided = json.loads((tmp_path / "run" / "environment.json").read_text())["decided"]["algorithm"]
    assert decided["machine"]["processes_per_host"] == [4]  # two nodes of Slurm on one machine share its memory

    code, out, err = cluster.run(*train, "--json", cwd=tmp_path)  # rank 0 names the folder
    assert code == 0, err
    (folder,) = (tmp_path / "runs").iterdir()
    assert json.loads(out)["folder"] == str(folder.relative_to(tmp_path))
    assert (json.loads(out)["processes"], json.loads(out)["weights_sha256"]) == (4, alone)


def test_every_task_of_a_call_from_python_learns_the_folder(cluster, tmp_path, alone):
    script = tmp_path / "script.py"
    script.write_text(
        "import os, batchscale\n"
        "words = ['minibatch.workers=8', 'epochs=3', 'numerics.exact=true']\n"
        "out = 'run' if os.environ['SLURM_PROCID'] == '0' else None\n"
        "result = batchscale.train('digits-cnn', words, out=out, quiet=True)\n"
        "print(result.folder, result.weights_sha256)\n"
    )
    code, out, err = cluster.run("srun", "-n2", sys.executable, str(script), cwd=tmp_path)
    assert code == 0, err
    assert sorted(out.splitlines()) == [f"run {alone}"] * 2
    assert [path.name for path in tmp_path.glob("run*")] == ["run"]


def test_torchrun_below_srun(cluster, tmp_path, alone):
    port = free_port()
    code, _, err = cluster.run(
        "srun", "-N2", "--ntasks-per-node=1", "torchrun", "--nnodes=2", "--nproc-per-node=2", "--rdzv-backend=c10d",
        "--rdzv-id=job", f"--rdzv-endpoint=127.0.0.1:{port}", "--local-addr=127.0.0.1", "-m", "batchscale", "train",
        *WORDS, "--out", "run", cwd=tmp_path,
    )  # fmt: skip
    assert code == 0, err
    assert (result_in(tmp_path / "run")["processes"], result_in(tmp_path / "run")["weights_sha256"]) == (4, alone)


def test_one_task_and_a_shell_of_a_job_are_plain_runs(cluster, tmp_path, alone):
    for number, command in enumerate(
        (
            ("srun", "-n1", "batchscale", "train", *WORDS, "--out", "run0"),
            ("salloc", "-n4", "bash", "-c", f"batchscale train {' '.join(WORDS)} --out run1"),
            ("salloc", "-n4", "srun", "-n1", "batchscale", "train", *WORDS, "--processes", "2", "--out", "run2"),
        )
    ):
        code, _, err = cluster.run(*command, cwd=tmp_path)
        assert code == 0, err
        processes, weights = (result_in(tmp_path / f"run{number}")[name] for name in ("processes", "weights_sha256"))
        assert (processes, weights) == (2 if "--processes" in command else 1, alone)


@pytest.mark.parametrize(
    ("tasks", "command", "what"),
    [
        (2, ("train", *WORDS, "--processes", "2"), "--processes=2"),
        (4, ("study", "grid", "digits-cnn", "--seeds", "2"), "study"),
    ],
)
def test_what_starts_processes_itself_is_refused_in_one_line(cluster, tmp_path, tasks, command, what):
    code, out, err = cluster.run("srun", f"-n{tasks}", "batchscale", *command, "--out", "none", cwd=tmp_path)
    lines = [line for line in err.splitlines() if not line.startswith("srun:")]
    assert (code, out, len(lines)) == (2, "", 1), err
    assert f"{what} {REFUSED}" in lines[0]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("learning_rate.reference=0.0$((SLURM_PROCID+1)) --out d", "learning_rate.reference: 0.02, not 0.01"),
        ("--out d$SLURM_PROCID", "--out: d1, not d0"),
        ("$([ $SLURM_PROCID = 1 ] && echo --out d)", "--out: d, not runs/digits-cnn-"),
    ],
)
def test_tasks_with_different_commands_are_refused_in_one_line(cluster, tmp_path, words, said):
    command = f"batchscale train digits-cnn minibatch.workers=4 epochs=1 --exact {words}"
    code, out, err = cluster.run("srun", "-n2", "bash", "-c", command, cwd=tmp_path)
    lines = [line for line in err.splitlines() if not line.startswith("srun:")]
    assert (code, out, len(lines)) == (2, "", 1), err
    assert lines[0].startswith(f"batchscale: rank 1 was given other than rank 0: {said}")
    assert lines[0].endswith(
        "for a run of each task, in each: unset SLURM_PROCID SLURM_STEP_NUM_TASKS (nothing was written)"
    )
    assert not list(tmp_path.iterdir())


def test_too_many_tasks_and_the_work_of_one_are_told_in_words_of_slurm(cluster, tmp_path):
    train = ("train", "digits-cnn", "minibatch.workers=2", "--out", "d")
    for words, said in (
        (train, "4 tasks (SLURM_STEP_NUM_TASKS=4): must not exceed .*; start at most 2 tasks, srun -n 2, or raise"),
        (("report", "d"), "as one of 4, but report is the work of one: start one task (srun -n 1)"),
    ):
        code, out, err = cluster.run("srun", "-n4", "batchscale", *words, cwd=tmp_path)
        lines = [line for line in err.splitlines() if not line.startswith("srun:")]
        assert (code, out, len(lines)) == (2, "", 1), err
        assert re.search(re.escape(said).replace(r"\.\*", ".*"), lines[0]), lines[0]
        assert not list(tmp_path.iterdir())


def test_a_task_that_dies_is_named_and_ends_the_others(cluster, tmp_path):
    words = (*WORDS[:2], "epochs=5000", "execution.timeout_seconds=5", "--out", "run")
    step = cluster.begin("srun", "-n2", "batchscale", "train", *words, cwd=tmp_path)
    cluster.wait_until(lambda: (tmp_path / "run" / "metrics.jsonl").exists(), 200)
    for process in cluster.living():
        with contextlib.suppress(OSError):  # one that has ended meanwhile
            if "SLURM_PROCID=1" in Path(f"/proc/{process}/environ").read_bytes().decode().split("\0"):
                os.kill(process, 9)
    _, err = step.communicate()
    assert step.returncode != 0
    assert "rank 1 died" in err
    assert "rank 1 died" in result_in(tmp_path / "run")["error"]


def script_of_the_page():
    """The job of docs/do/clusters.md that goes on after its time limit."""
    page = (ROOT / "docs" / "do" / "clusters.md").read_text(encoding="utf-8")
    (script,) = (s for s in re.findall(r"```bash\n(.*?)```", page, re.DOTALL) if "scontrol requeue" in s)
    return script


def test_the_job_of_the_page_goes_on_after_a_requeue(cluster, tmp_path):
    script = script_of_the_page()
    (words,) = re.findall(r"srun --wait=60 batchscale train (.*) --out runs/digits --resume=auto", script)
    recipe, *overrides, exact = words.split()
    assert exact == "--exact"
    undisturbed = trained(0, recipe, (*overrides, "numerics.exact=true"), None, tmp_path / "alone")

    (tmp_path / "job.sh").write_text(script)
    code, out, err = cluster.run("sbatch", "--parsable", "job.sh", cwd=tmp_path)
    assert code == 0, err
    job, run = out.strip(), tmp_path / "runs" / "digits"
    cluster.wait_until(lambda: (run / "metrics.jsonl").exists() and cluster.jobs() == {job: "RUNNING"}, 200)
    assert cluster.run("scancel", "--signal=USR1", job)[0] == 0  # as --signal=USR1@300 does: steps, not the script
    cluster.wait_until(lambda: cluster.jobs() == {job: "PENDING"}, 100)
    assert not (run / "result.json").exists()
    cluster.wait_for_jobs()
    log = (tmp_path / "digits.log").read_text()
    assert result_in(run)["weights_sha256"] == undisturbed["weights_sha256"], log
    assert result_in(run)["processes"] == 4
    assert "stopped by SIGUSR1 after step" in log
    assert "resuming at step" in log
    assert len(json.loads((run / "environment.json").read_text())["earlier"]) == 1


STUDY = ("batchscale", "study", "grid", "digits-cnn", "numerics.threads=1", "--seeds", "2", "--launcher", "slurm")


def test_a_study_sends_its_runs_as_jobs(cluster, tmp_path):
    code, _, err = cluster.run(*STUDY, "epochs=1", "--out", "study", cwd=tmp_path)
    assert code == 0, err
    folders = sorted((tmp_path / "study" / "runs").glob("*/result.json"))
    assert [json.loads(folder.read_text())["status"] for folder in folders] == ["done"] * 2
    cluster.wait_for_jobs(60)  # a run is over with its result; its job's script then still has to end


def test_a_study_whose_job_is_cancelled_takes_its_jobs_with_it(cluster, tmp_path):
    """A study may itself be a job; scancel ends it by SIGTERM, and it cancels those that it has sent."""
    words = ("srun", "-n1", *STUDY, "epochs=5000", "execution.log_steps=1", "--jobs", "2", "--out", "study")
    study = cluster.begin(*words, cwd=tmp_path)
    cluster.wait_until(lambda: len(list((tmp_path / "study").glob("runs/*/metrics.jsonl"))) == 2, 200)
    first, *_ = jobs = sorted(cluster.jobs(), key=int)
    assert len(jobs) == 3  # the study's own, and its runs'
    cluster.run("scancel", first)
    study.communicate()
    cluster.wait_for_jobs()
    for run in (tmp_path / "study").glob("runs/*"):
        assert list(run.glob("checkpoints/step-*")), "it was asked to stop, and wrote none"


LAUNCHERS = {
    "mpirun.openmpi": ("--allow-run-as-root", "--oversubscribe", "-n", "2"),
    "mpirun.mpich": ("-n", "2"),
}


@pytest.mark.parametrize("program", LAUNCHERS)
def test_the_processes_of_mpirun_are_one_run(tmp_path, alone, program):
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed (Debian: openmpi-bin, mpich)")
    from support.slurm import Slurm

    shell = Slurm(tmp_path)  # none is started: its environment alone
    words = (program, *LAUNCHERS[program], "batchscale", "train", *WORDS, "--out", "run")
    code, out, err = shell.run(*words, cwd=tmp_path, MASTER_PORT=str(free_port()))
    assert code == 0, err
    assert out.count("\n") == 1
    assert (result_in(tmp_path / "run")["processes"], result_in(tmp_path / "run")["weights_sha256"]) == (2, alone)


def test_slurm_says_what_is_read(cluster, tmp_path):
    """The variables of a real step, of a batch script's body, and of a batch script that a step has submitted."""
    shown = tmp_path / "show.sh"
    shown.write_text('#!/bin/bash\nenv > "$1-${SLURM_PROCID:-none}"\n')
    shown.chmod(0o755)
    cluster.run("srun", "-N2", "-n3", str(shown), str(tmp_path / "step"), cwd=tmp_path)
    cluster.run("sbatch", "--wait", "-n3", str(shown), str(tmp_path / "batch"), cwd=tmp_path)
    cluster.run("salloc", "-n3", str(shown), str(tmp_path / "shell"), cwd=tmp_path)
    cluster.run("srun", "-n2", "sbatch", "--wait", "-n3", str(shown), str(tmp_path / "inner"), cwd=tmp_path)
    tasks = {
        file.name: cluster_task(dict(line.split("=", 1) for line in file.read_text().splitlines() if "=" in line))
        for file in tmp_path.iterdir()
        if "-" in file.name and not file.name.startswith("slurm-")
    }
    assert {name for name, task in tasks.items() if task} == {"step-0", "step-1", "step-2"}
    assert {"batch-0", "shell-none", "inner-0"} <= set(tasks)
    steps = [tasks[f"step-{rank}"] for rank in range(3)]
    assert [(t.rank, t.size, t.local_rank, t.local_size, t.node) for t in steps] == [
        (0, 3, 0, 2, 0), (1, 3, 1, 2, 0), (2, 3, 0, 1, 1),
    ]  # fmt: skip
    assert {t.nodes for t in steps} == {"n[1-2]"}
