"""What a study asks of Slurm: the options, the tasks and nodes of a run, and what becomes of a job."""

import os
import pickle
import time
from pathlib import Path

import pytest
from support.fake_slurm import fake_slurm, options_of

from batchscale.cli import main
from batchscale.errors import UsageError
from batchscale.recipe import load_recipe
from batchscale.study.runner import queue
from batchscale.study.runner.queue import Queue, is_over, reason_of
from batchscale.study.runner.slurm import Allotment, cluster_from, limit_seconds
from batchscale.study.runner.submitit import SubmititAttempt, SubmititLauncher
from batchscale.study.runner.work import Work
from batchscale.system import slurm as slurms_commands


def work(processes, *overrides, name="run"):
    return Work("digits-cnn", load_recipe("digits-cnn", overrides), Path("nowhere") / name, None, processes)


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """The folder of a fake one's jobs; this process finds its programs."""
    jobs, environment = fake_slurm(tmp_path / "slurm", os.environ["PATH"])
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    (jobs / "hold").write_text("0")  # nothing runs
    yield jobs
    for job in jobs.glob("[0-9]*"):
        (job / "cancelled").touch()  # else each would wait for ever


@pytest.mark.parametrize(
    ("words", "processes", "recipe", "allotment"),
    [
        ([], 1, [], Allotment(1, 1, 1, 1, None)),
        ([], 8, ["numerics.threads=3"], Allotment(8, 1, 8, 3, None)),  # the whole on one node
        ([], 4, ["execution.device=cuda"], Allotment(4, 1, 4, 1, "4")),
        (["gres=gpu:4"], 4, ["execution.device=cuda"], Allotment(4, 1, 4, 1, None)),  # asked for another way
        (["ntasks-per-node=2"], 4, [], Allotment(4, 2, 2, 1, None)),
        (["ntasks-per-node=4"], 1, [], Allotment(1, 1, 1, 1, None)),
        (["ntasks-per-node=4"], 6, [], Allotment(6, 2, 3, 1, None)),  # evenly
        (["ntasks-per-node=4"], 5, [], Allotment(5, 2, 3, 1, None)),
        (["gpus-per-node=8"], 4, [], Allotment(4, 1, 4, 1, "4")),  # no more than it has processes
        (["gpus-per-node=h100:8"], 32, [], Allotment(32, 4, 8, 1, "h100:8")),
        (["gpus-per-node=8", "ntasks-per-node=2"], 4, [], Allotment(4, 2, 2, 1, "2")),
        (["gpus-per-node=8"], 4, ["execution.device=cpu"], Allotment(4, 1, 4, 1, None)),
        (["cpus-per-task=6"], 2, ["numerics.threads=3"], Allotment(2, 1, 2, 6, None)),
    ],
)
def test_tasks_and_nodes_of_a_run(words, processes, recipe, allotment):
    assert cluster_from(words).allotment(work(processes, *recipe)) == allotment


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        (["partition"], None),
        (["--partition=gpu"], None),
        (["time=2-00:30"], None),
        (["mem-per-cpu=4G"], None),
        (["partition="], "must be an option of sbatch as NAME=VALUE"),
        (["=gpu"], "must be an option of sbatch as NAME=VALUE"),
        (["a b=c"], "must be an option of sbatch as NAME=VALUE"),
        (["comment=two\nlines"], "must be an option of sbatch as NAME=VALUE"),
        (["partition=a", "partition=b"], "is given twice"),
        (["time=soon"], "must be a time of Slurm"),
        (["time"], "must be a time of Slurm"),
        (["mem=much"], "must be a size, such as 16G"),
        (["ntasks-per-node=0"], "must be a whole number of at least 1"),
        (["gpus-per-node=two"], "must be a number of GPUs, such as 4 or h100:4"),
        (["nodes=2"], "counts them from a run's processes; give ntasks-per-node=N"),
        (["array=1-3"], "submits each of its runs by itself"),
        (["gpus-per-node=2", "ntasks-per-node=4"], "each process needs a GPU of its own"),
    ],
)
def test_options_of_sbatch(words, rule):
    if rule is None:
        assert cluster_from(words).options
        return
    with pytest.raises(UsageError, match=rule) as caught:
        cluster_from(words)
    assert "--slurm " in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_sbatch_sees_what_was_asked_and_an_option_goes_before_its_variable(slurm, tmp_path, monkeypatch):
    monkeypatch.setenv("SBATCH_PARTITION", "old")
    words = ["account=lab", "qos=high", "exclusive", "gpus-per-node=a100:4", "ntasks-per-node=2", "cpus-per-task=5"]
    launcher = SubmititLauncher(tmp_path / "submitit", cluster_from(words))
    launcher.start(work(4, name="four"))
    launcher.start(work(1, "execution.device=cpu", name="one"))
    SubmititLauncher(tmp_path / "more", cluster_from(["partition=new", "time=8:00:00"])).start(work(1))
    four, one, new = (options_of(slurm / number) for number in "123")
    wanted = {"nodes": "2", "ntasks": "4", "ntasks-per-node": "2", "cpus-per-task": "5", "gpus-per-node": "a100:2"}
    wanted |= {"account": "lab", "qos": "high", "exclusive": "", "partition": "old", "signal": "USR1@90"}
    assert four.items() >= {**wanted, "time": "1440", "job-name": "batchscale-four"}.items()
    assert one.items() >= {"nodes": "1", "ntasks": "1", "ntasks-per-node": "1", "cpus-per-task": "5"}.items()
    assert "gpus-per-node" not in one
    assert (new["partition"], new["time"]) == ("new", "8:00:00")
    assert "srun --unbuffered" in (slurm / "1" / "script").read_text()
    assert "--cpus-per-task=5" in (slurm / "1" / "script").read_text().splitlines()[-1]


def test_what_slurm_would_refuse_is_one_line_before_anything_is_submitted(slurm, tmp_path, capsys):
    words = ["study", "grid", "digits-cnn", "--way", "x:", "--seeds", "1", "--out", str(tmp_path / "s")]
    for more, sentence in (
        (["--slurm", "partition=gpu"], "--slurm partition=gpu: is for --launcher slurm; add it"),
        (["--launcher", "slurm", "--slurm", "time=x"], "--slurm time=x: must be a time of Slurm"),
        (
            ["--launcher", "slurm", "--slurm", "partition=none"],
            "--launcher slurm --slurm partition=none: sbatch refuses a run of 1 process on 1 node: Invalid partition "
            "name specified; see man sbatch (nothing was submitted)",
        ),
    ):
        assert main([*words, *more]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert sentence in line
        assert not (tmp_path / "s").exists()
    assert not list(slurm.glob("[0-9]*"))


def test_each_shape_of_job_is_checked_once_and_one_that_must_wait_is_said(slurm, tmp_path):
    lines = []
    launcher = SubmititLauncher(tmp_path / "submitit", cluster_from([]), lines.append)
    assert launcher.prepare([work(processes) for processes in (1, 2, 1, 8, 8)], None) == 1
    assert (slurm / "checked").read_text().count("test-only") == 3
    assert lines == [
        "Slurm cannot start a run of 8 processes on 1 node as its nodes are now (Requested node configuration is not "
        "available): it will wait, perhaps for ever; --slurm ntasks-per-node=N spreads a run over nodes"
    ]
    first = launcher.start(work(1, name="first"))
    assert first.ended() is None
    assert launcher.start(work(1, name="second")).ended() is None  # which the queue did not list when it was last asked
    (slurm / "full").touch()
    assert launcher.start(work(1)).ended() == "sbatch refused it: Job violates accounting/QOS policy"
    assert launcher.start(work(1, name="first")).ended() is None  # it is in the queue: not submitted again
    assert sorted(job.name for job in slurm.glob("[0-9]*")) == ["1", "2"]


def test_a_job_that_slurm_does_not_tell_of_is_not_submitted_again(slurm, tmp_path):
    """Two jobs would share the run's folder."""
    SubmititLauncher(tmp_path / "submitit", cluster_from([])).start(work(1))
    (slurm / "down").touch()
    attempt = SubmititLauncher(tmp_path / "submitit", cluster_from([])).start(work(1))
    leave(tmp_path / "submitit", 1, 0, _STOPPED)
    assert attempt.ended() is None
    assert [job.name for job in slurm.glob("[0-9]*")] == ["1"]
    (slurm / "down").unlink()
    (slurm / "1" / "state").write_text("TIMEOUT\n")
    attempt._queue.forget()
    assert attempt.ended().startswith("job 1 was ended by the cluster (TIMEOUT)")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "sbatch: error: invalid partition specified: x\nallocation failure: Invalid\n",
            "invalid partition specified: x",
        ),
        (
            "sbatch: unrecognized option '--x'\nTry \"sbatch --help\" for more information\n",
            "unrecognized option '--x'",
        ),
        ("sbatch: warning: old\nsbatch: error: Batch job submission failed: No account\n", "No account"),
        ("", ""),
    ],
)
def test_sbatchs_reason(text, reason):
    assert reason_of(text) == reason


class Said:
    """A queue that says one thing, and remembers whether it was asked soon."""

    def __init__(self, state):
        self.word, self.soon = state, None

    def state(self, number, soon=False):
        self.soon = soon
        return self.word


def leave(folder, number, task, trace=None, age=0.0):
    """The result of a task, as submitit leaves it."""
    file = folder / f"{number}_{task}_result.pkl"
    file.write_bytes(pickle.dumps(("success", None) if trace is None else ("error", trace)))
    os.utime(file, (time.time() - age,) * 2)


_STOPPED = (
    "Traceback\nbatchscale.run.run.Stopped: stopped by SIGUSR1 at step 9; go on with: batchscale train x --resume\n"
)


@pytest.mark.parametrize(
    ("state", "results", "error"),
    [
        ("PENDING", [], None),
        ("RUNNING", [], None),
        ("RUNNING", [(0, None)], ""),
        ("RUNNING", [(1, None), (2, None)], None),  # rank 0 still writes
        (None, [], None),  # Slurm does not answer: wait
        ("RUNNING", [(0, "batchscale.errors.UsageError: no\n")], None),  # not yet over: it may be requeued
        ("PENDING", [(0, "batchscale.errors.UsageError: no\n")], None),  # it is
        ("FAILED", [(0, "batchscale.errors.UsageError: no\n")], "no; see {log}"),
        (None, [(0, "batchscale.errors.UsageError: no\n")], None),  # it may be requeued: nobody knows
        ("unlisted", [(0, "x\nValueError: a: b\n")], "ValueError: a: b; see {log}"),
        (
            "FAILED",
            [(0, "batchscale.errors.RunError: rank 2 is gone\n"), (2, "KeyError: 'x'\n")],
            "KeyError: 'x'; see {log}",
        ),
        ("FAILED", [(0, _STOPPED)], "stopped by SIGUSR1 at step 9; the same command goes on with it; see {log}"),
        ("FAILED", [], "job 7 ended (FAILED) and left no result; see {log}"),
        *(
            (state, results, f"job 7 was ended by the cluster ({state}); the same command goes on with it; see {{log}}")
            for state in ("TIMEOUT", "NODE_FAIL", "PREEMPTED", "CANCELLED", "OUT_OF_MEMORY")
            for results in ([], [(0, _STOPPED)])
        ),
    ],
)
def test_what_becomes_of_a_job(tmp_path, state, results, error):
    for task, trace in results:
        leave(tmp_path, 7, task, trace, age=1000 * task)  # a later task was the first to fail
        leave(tmp_path, 71, task, "another job's")
    said = Said(state)
    attempt = SubmititAttempt("7", tmp_path, said)
    assert attempt.ended() == (error and error.format(log=tmp_path / "7_0_log.err"))
    assert said.soon in (None, bool(results))


def test_a_job_that_is_cancelled_is_over_when_the_cluster_says_so(slurm, tmp_path):
    (slurm / "1").mkdir()
    (slurm / "1" / "state").write_text("RUNNING\n")
    said = Said("RUNNING")
    attempt = SubmititAttempt("1", tmp_path, said)
    attempt.stop()
    assert (slurm / "1" / "cancelled").exists()
    assert attempt.ended() is None
    assert said.soon
    leave(tmp_path, 1, 0, _STOPPED)
    assert attempt.ended() is None
    said.word = "CANCELLED"
    assert attempt.ended() == "cancelled"


def test_the_queue_is_asked_seldom_and_tells_what_it_does_not_know(slurm, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(queue.time, "monotonic", lambda: now[0])
    (slurm / "3").mkdir()
    (slurm / "3" / "state").write_text("PENDING\n")
    jobs = Queue()

    def calls():
        return (slurm / "asked").read_text().count("\n")

    assert (jobs.state("3"), jobs.state("4"), calls()) == ("PENDING", "unlisted", 1)
    (slurm / "3" / "state").write_text("RUNNING\n")
    now[0] = 29.0
    assert (jobs.state("3"), calls()) == ("PENDING", 1)
    assert (jobs.state("3", soon=True), jobs.state("3", soon=True), calls()) == ("RUNNING", "RUNNING", 2)
    now[0] = 59.0
    assert (jobs.state("3"), calls()) == ("RUNNING", 3)
    jobs.forget()
    assert (jobs.state("3"), calls()) == ("RUNNING", 4)
    monkeypatch.setenv("PATH", str(slurm))  # no squeue there
    now[0] = 99.0
    assert jobs.state("3") is None
    assert [is_over(state) for state in (None, "PENDING", "COMPLETING", "unlisted", "TIMEOUT")] == [
        False, False, False, True, True,
    ]  # fmt: skip


def test_a_users_own_defaults_for_squeue_and_scancel_hide_no_job(slurm, tmp_path, monkeypatch):
    for name in ("SQUEUE_PARTITION", "SCANCEL_STATE", "SBATCH_PARTITION"):
        monkeypatch.setenv(name, "elsewhere")
    attempt = SubmititLauncher(tmp_path / "submitit", cluster_from([])).start(work(1))
    assert options_of(slurm / "1")["partition"] == "elsewhere"
    assert attempt.ended() is None
    attempt.stop()
    assert (slurm / "1" / "cancelled").exists()


def test_a_slurm_that_hangs_holds_nobody_up(slurm, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(slurms_commands.ask, "__kwdefaults__", {"text": None, "seconds": 0.3})
    launcher = SubmititLauncher(tmp_path / "submitit", cluster_from([]))
    attempt = launcher.start(work(1))
    for name in ("squeue", "sbatch", "scancel"):
        (slurm.parent / "bin" / name).write_text("#!/bin/sh\nexec sleep 600\n")
    assert attempt.ended() is None
    attempt.stop()
    assert capsys.readouterr().err == "scancel 1: it gives no answer\n"
    with pytest.raises(UsageError, match=r"1 process on 1 node: it gives no answer; .* \(nothing was submitted"):
        launcher.prepare([work(1)], None)


@pytest.mark.parametrize(
    ("time", "seconds", "lead"),
    [
        ("1", 60, 20),
        ("4:30", 270, 90),
        ("0:00:45", 45, 15),
        ("2:00:00", 7200, 90),
        ("1-12", 129600, 90),
        ("1-0:30", 88200, 90),
        ("0-0:1:3", 63, 21),
        ("UNLIMITED", None, 90),
        ("0", None, 90),
    ],
)
def test_the_signal_to_stop_goes_before_the_limit_by_a_third_at_most(monkeypatch, time, seconds, lead):
    assert limit_seconds(time) == seconds
    for words, variable in ((["time=" + time], "7"), ([], time)):
        monkeypatch.setenv("SBATCH_TIMELIMIT", variable)
        cluster = cluster_from(words)
        assert cluster.allotment(work(1)).parameters()["additional_parameters"]["signal"] == f"USR1@{lead}"
        assert (cluster.short_limit() is None) == (lead == 90)


def test_a_short_limit_is_said_before_anything_is_submitted(slurm, tmp_path):
    lines = []
    SubmititLauncher(tmp_path / "submitit", cluster_from(["time=1"]), lines.append).prepare([work(1)], None)
    assert lines == [
        "the time limit of 60 s is short: a run is asked to stop 20 s before it, after 40 s with its start; with at "
        "least 270 s it has 90 s to stop"
    ]
