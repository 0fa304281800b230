"""One run on any number of processes: the same bits, through kills, stops, restarts and lost hosts."""

import itertools
import json
import os
import random
import re
import shlex
import signal
import socket
from types import SimpleNamespace

import pytest
from support.dues import first, stop_after
from support.launching import SMALL, Started, result, run
from support.worlds import endings, free_port, in_processes, trained

from batchscale.errors import ProcessError, UsageError
from batchscale.launch.processes import _explain
from batchscale.records.files import read_lines
from batchscale.run.run import Stopped
from batchscale.training import checkpoint as checkpoints
from batchscale.training import loop
from batchscale.training.due import DUES

EXACT = (*SMALL, "--exact")
EVERY_STEP = ("execution.checkpoint_seconds=0",)
slow = pytest.mark.slow


def train(processes, out, *overrides, resume="no"):
    """The results of a run on so many forked processes, one a rank."""
    return in_processes(processes, trained, SMALL[0], (*SMALL[1:], *overrides), None, out, resume)


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The result of the run on one process, left alone."""
    return train(1, tmp_path_factory.mktemp("alone") / "run", "numerics.exact=true")[0]


def check_equal(found, expected):
    for name in ("weights_sha256", "test_loss", "train_loss", "test_error_percent", "steps"):
        assert found[name] == expected[name]


@pytest.mark.parametrize(
    ("processes", "omp"), [(2, None), pytest.param(3, "1", marks=slow), pytest.param(4, "2", marks=slow)]
)
def test_exact_weights_are_bitwise_the_same_on_any_number_of_processes(tmp_path, expected, processes, omp):
    environment = {"OMP_NUM_THREADS": omp} if omp else {}
    out = tmp_path / "run"
    found = result("train", *EXACT, "--processes", str(processes), "--out", str(out), environment=environment)
    check_equal(found, expected)
    assert found["processes"] == processes
    assert [line["step"] for line in lines(out)] == list(range(1, 31))


@pytest.mark.parametrize("processes", [3, 4, 6])
def test_so_they_are_where_workers_are_dealt_unevenly_or_one_a_process(tmp_path, expected, processes):
    for found in train(processes, tmp_path / "run", "numerics.exact=true"):
        check_equal(found, expected)


def test_fast_mode_agrees_to_rounding(tmp_path):
    one, three = (train(w, tmp_path / str(w), "precision=fp64")[0] for w in (1, 3))
    assert one["train_loss"] == pytest.approx(three["train_loss"], rel=1e-9)
    assert one["test_loss"] == pytest.approx(three["test_loss"], rel=1e-7)


CHANGES_OF_FILES = ("fsync", "replace", "rename", "unlink")


def killed(rank, victims, step, calls, out, resume):
    """A run in which the victims get SIGKILL after this step: rank 0 at one of the calls by which it writes of it.

    Returns:
        What a process that outlives it is told.
    """
    left = itertools.count(calls, -1)

    def deadly(call):
        return lambda *given, **named: (
            os.kill(os.getpid(), signal.SIGKILL) if next(left) == 0 else call(*given, **named)
        )

    def kill(course):
        if rank:
            os.kill(os.getpid(), signal.SIGKILL)
        for name in CHANGES_OF_FILES:
            setattr(os, name, deadly(getattr(os, name)))

    loop.DUES = first(lambda course: course.steps_done > step and rank in victims, kill)
    with pytest.raises(ProcessError) as told:
        trained(rank, SMALL[0], (*SMALL[1:], *EVERY_STEP, "numerics.exact=true"), None, out, resume)
    return str(told.value)


def test_killed_at_ten_random_steps_and_resumed_on_other_processes(tmp_path, expected):
    """SIGKILL to one process, or to all, at ten random steps of one run; every resume on another W."""
    out = tmp_path / "run"
    generator = random.Random(5)
    reached = 0
    for kill, processes in enumerate([2, 1, 3, 2, 4, 1, 2, 3, 1, 2]):
        reached += generator.randint(1, 2)
        victims = {processes - 1} if kill % 2 else set(range(processes))
        arguments = (victims, reached, generator.randrange(8), out, "yes" if kill else "no")
        for rank, ended in enumerate(endings(processes, killed, *arguments)):
            if rank in victims:
                assert ended == -signal.SIGKILL
            else:
                assert re.search(rf"rank {processes - 1} (died|failed, as rank \d found)", ended), ended
    for found in train(2, out, *EVERY_STEP, "numerics.exact=true", resume="yes"):
        check_equal(found, expected)


@slow
def test_killed_from_outside_at_any_moment_and_resumed_on_other_processes(tmp_path):
    """SIGKILL to the launcher and all its processes, or to one of these, whenever it comes in a long run.

    A machine so busy that the run has ended before the kill comes makes this test prove less, never fail.
    """
    long = (*EXACT, *EVERY_STEP, "epochs=20")
    out = tmp_path / "run"
    generator = random.Random(5)
    reached = 0
    for kill, processes in enumerate([2, 1, 3, 2]):
        resume = ("--resume",) if kill else ()
        started = Started("train", *long, "--processes", str(processes), "--out", str(out), *resume)
        reached += generator.randint(1, 10)
        started.wait_for_step(out, reached)
        if kill == 2:
            started.kill_rank(processes - 1)
            code, _, err = started.end()
            assert code == 0 or (code == 1 and f"rank {processes - 1} was killed by SIGKILL" in err)
        else:
            started.kill_all()
            assert started.end()[0] in (0, -signal.SIGKILL)
    found = result("train", *long, "--processes", "2", "--out", str(out), "--resume")
    check_equal(found, train(1, tmp_path / "alone", "numerics.exact=true", "epochs=20")[0])


ENDLESS = ("epochs=5000", "execution.log_steps=1")
"""A run that no signal comes too late for; it is compared step by step, as every line of an exact run has a digest."""


def stopped(rank, steps, out):
    """Start an endless run, or go on with it, and stop after so many steps of it."""
    DUES["stop"] = stop_after(steps)
    with pytest.raises(Stopped):
        trained(rank, SMALL[0], (*SMALL[1:], *ENDLESS, "numerics.exact=true"), None, out, "auto")


def lines(out):
    return read_lines(out / "metrics.jsonl")


def check_bits(out, straight):
    """Every step of an endless run was that of one process left alone, no step is missing."""
    found = [(line["step"], line["weights_sha256"], line["loss"]) for line in lines(out)]
    in_processes(1, stopped, len(found), straight)
    assert found == [(line["step"], line["weights_sha256"], line["loss"]) for line in lines(straight)]


def attempt_of(out):
    return json.loads((out / "environment.json").read_text())


def test_a_killed_launcher_takes_its_processes_with_it(tmp_path):
    out = tmp_path / "run"
    started = Started("train", *EXACT, *ENDLESS, "--processes", "2", "--out", str(out))
    started.wait_for_step(out, 2)
    assert len(started.living()) >= 3
    os.kill(started.process.pid, signal.SIGKILL)
    started.end()  # asserts that nothing is left


@slow  # the launcher gives the stopped process 30 s
def test_a_stopped_process_ends_the_run_in_time_and_is_named(tmp_path):
    out = tmp_path / "run"
    started = Started("train", *EXACT, *ENDLESS, "execution.timeout_seconds=3", "--processes", "2", "--out", str(out))
    started.wait_for_step(out, 2)
    os.kill(started.rank(1), signal.SIGSTOP)
    code, _, err = started.end()
    assert code == 1
    assert re.search(r"rank 1 (is stopped and )?did not answer within 3 s", err)
    assert json.loads((out / "result.json").read_text())["status"] == "failed"


@pytest.mark.parametrize(
    ("processes", "number", "code"),
    [
        (1, signal.SIGINT, 130),
        (2, signal.SIGTERM, 143),
        pytest.param(1, signal.SIGTERM, 143, marks=slow),
        pytest.param(2, signal.SIGINT, 130, marks=slow),
    ],
)
def test_a_signal_leaves_a_checkpoint_and_the_run_goes_on_by_the_command_that_it_prints(
    tmp_path, number, code, processes
):
    out = tmp_path / "the user's run"
    given = (
        "train", *EXACT, *ENDLESS, "execution.checkpoint_seconds=1000", "--processes", str(processes),
        "--out", str(out),
    )  # fmt: skip
    started = Started(*given, environment={"BATCHSCALE_DATA": ""})
    started.wait_for_step(out, 2)
    os.kill(started.process.pid, number)
    found, _, err = started.end()
    assert found == code, err
    assert "Traceback" not in err
    assert attempt_of(out)["command"] == ["batchscale", *given]
    reached = lines(out)[-1]["step"]
    assert checkpoints.steps_saved(out) == reached
    command = err.splitlines()[-1].partition("go on with: ")[2]
    assert shlex.split(command) == ["batchscale", *given, "--resume=auto"]
    in_processes(processes, stopped, reached + 3, out)
    check_bits(out, tmp_path / "straight")


def test_max_restarts_goes_on_from_the_last_checkpoint(tmp_path):
    out = tmp_path / "run"
    started = Started(
        "train", *EXACT, *ENDLESS, *EVERY_STEP, "--processes", "2", "--max-restarts", "2", "--out", str(out)
    )
    started.wait_for_step(out, 5)
    started.kill_rank(1)
    started.wait_until(lambda: len(attempt_of(out)["earlier"]) == 1)
    started.wait_for_step(out, len(lines(out)) + 3)
    started.kill_all()
    started.end()
    check_bits(out, tmp_path / "straight")


@slow
def test_plain_torchrun_works_too(tmp_path, expected):
    out = tmp_path / "run"
    code, stdout, err = run(
        "--nproc-per-node=2", f"--master-port={free_port()}", "--master-addr=127.0.0.1",
        "-m", "batchscale", "train", *EXACT, "--out", str(out), "--json",
        module="torch.distributed.run", environment={"GLOO_SOCKET_IFNAME": "lo", "BATCHSCALE_DATA": ""},
    )  # fmt: skip
    assert code == 0, err
    assert json.loads(stdout)["weights_sha256"] == expected["weights_sha256"]
    words = attempt_of(out)["command"]
    assert words[:2] == ["torchrun", "--nproc-per-node=2"]
    assert words[words.index("-m") :] == ["-m", "batchscale", "train", *EXACT, "--out", str(out), "--json"]


@slow
def test_two_hosts_become_one(tmp_path):
    """torchrun --nnodes=1:2: one host is lost, the other one goes on with a smaller world, to the same bits."""
    out, port = tmp_path / "run", free_port()
    torchrun = (
        "--nnodes=1:2", "--nproc-per-node=1", "--max-restarts=30", "--rdzv-backend=c10d", "--rdzv-id=job",
        f"--rdzv-endpoint=127.0.0.1:{port}", "--local-addr=127.0.0.1",
        "--rdzv-conf=last_call_timeout=20,keep_alive_interval=1,keep_alive_max_attempt=6",
        "-m", "batchscale", "train", *EXACT, *ENDLESS, *EVERY_STEP, "--out", str(out), "--json",
    )  # fmt: skip
    environment = {"GLOO_SOCKET_IFNAME": "lo"}
    first = Started(*torchrun, module="torch.distributed.run", environment=environment)
    first.wait_until(lambda: port_is_taken(port))  # the first host holds the rendezvous
    second = Started(*torchrun, module="torch.distributed.run", environment=environment)

    def goes_on_with(processes):
        begun = (out / "metrics.jsonl").exists() and attempt_of(out)["processes"] == processes
        return begun and len(lines(out)) >= checkpoints.steps_saved(out) > attempt_of(out)["from_step"] + 3

    second.wait_until(lambda: goes_on_with(2))
    second.kill_all()
    second.end()
    first.wait_until(lambda: goes_on_with(1))
    first.kill_all()
    first.end()
    check_bits(out, tmp_path / "straight")


def port_is_taken(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize(
    ("failures", "kind", "sentence"),
    [
        ({1: (-signal.SIGTERM, "", 1), 0: (2, "no GPU", 2)}, UsageError, "no GPU"),
        ({0: (-signal.SIGTERM, "", 1), 1: (1, "broken", 2)}, ProcessError, "rank 1 failed: broken; all processes "),
        ({0: (1, "rank 1 died", 1), 1: (-signal.SIGKILL, "", 2)}, ProcessError, "rank 1 was killed by SIGKILL"),
        ({0: (-signal.SIGTERM, "", 2), 1: (-signal.SIGTERM, "", 1)}, ProcessError, "rank 1 was killed by SIGTERM"),
        ({0: (2, "first", 1), 1: (2, "second", 2)}, UsageError, "first"),
    ],
)
def test_the_agents_own_sigterm_is_no_cause_beside_an_error(failures, kind, sentence):
    rows = {rank: SimpleNamespace(exitcode=c, message=m, timestamp=t) for rank, (c, m, t) in failures.items()}
    error = _explain(SimpleNamespace(failures=rows), "way on")
    assert type(error) is kind
    assert str(error).startswith(sentence)
