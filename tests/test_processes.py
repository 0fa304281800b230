"""One run on any number of processes: the same bits, through kills, stops, restarts and lost hosts."""

import json
import os
import random
import re
import shlex
import signal
import time
from pathlib import Path

import pytest
from launching import SMALL, Started, result, run
from worlds import free_port

EXACT = (*SMALL, "--exact")
EVERY_STEP = ("execution.checkpoint_seconds=0",)


def shared_memory():
    return sorted(os.listdir("/dev/shm")) if Path("/dev/shm").is_dir() else []


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The result of the run on one process, left alone."""
    return result("train", *EXACT, "--out", str(tmp_path_factory.mktemp("alone") / "run"))


@pytest.mark.parametrize(("processes", "omp"), [(2, None), (3, "1"), (4, "2")])
def test_exact_weights_are_bitwise_the_same_on_any_number_of_processes(tmp_path, expected, processes, omp):
    environment = {"OMP_NUM_THREADS": omp} if omp else {}
    out = tmp_path / "run"
    found = result("train", *EXACT, "--processes", str(processes), "--out", str(out), environment=environment)
    assert found["weights_sha256"] == expected["weights_sha256"]
    for name in ("test_loss", "train_loss", "test_error_percent", "steps"):
        assert found[name] == expected[name]
    assert found["processes"] == processes
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 31))


def test_fast_mode_agrees_to_rounding(tmp_path):
    runs = [result("train", *SMALL, "precision=fp64", "--processes", w, "--out", str(tmp_path / w)) for w in "13"]
    assert runs[0]["train_loss"] == pytest.approx(runs[1]["train_loss"], rel=1e-9)
    assert runs[0]["test_loss"] == pytest.approx(runs[1]["test_loss"], rel=1e-7)


@pytest.mark.slow
def test_killed_at_ten_random_steps_and_resumed_on_other_processes(tmp_path, expected):
    """SIGKILL to one process, or to all, at ten random steps of one run; every resume on another W."""
    before = shared_memory()
    out = tmp_path / "run"
    generator = random.Random(5)
    reached = 0
    for kill, processes in enumerate([2, 1, 3, 2, 4, 1, 2, 3, 1, 2]):
        resume = ("--resume",) if kill else ()
        started = Started("train", *EXACT, *EVERY_STEP, "--processes", str(processes), "--out", str(out), *resume)
        reached = max(reached, generator.randint(reached, min(reached + 5, 28)))
        started.wait_for_step(out, reached)
        if kill % 2 and processes > 1:
            os.kill(started.rank(processes - 1), signal.SIGKILL)
            code, _, err = started.end()
            assert code == 1
            assert f"rank {processes - 1} was killed by SIGKILL" in err
        else:
            started.kill_all()
            assert started.end()[0] == -signal.SIGKILL
    found = result("train", *EXACT, *EVERY_STEP, "--processes", "2", "--out", str(out), "--resume")
    assert found["weights_sha256"] == expected["weights_sha256"]
    assert found["train_loss"] == expected["train_loss"]
    assert shared_memory() == before


def test_a_killed_launcher_takes_its_processes_with_it(tmp_path):
    out = tmp_path / "run"
    started = Started("train", *EXACT, "epochs=500", "--processes", "2", "--out", str(out))
    started.wait_for_step(out, 2)
    assert len(started.living()) >= 3
    os.kill(started.process.pid, signal.SIGKILL)
    started.end()  # asserts that nothing is left


def test_a_stopped_process_ends_the_run_in_time_and_is_named(tmp_path):
    out = tmp_path / "run"
    started = Started(
        "train", *EXACT, "epochs=500", "execution.timeout_seconds=3", "--processes", "2", "--out", str(out)
    )
    started.wait_for_step(out, 2)
    os.kill(started.rank(1), signal.SIGSTOP)
    begun = time.monotonic()
    code, _, err = started.end()
    assert code == 1
    assert re.search(r"rank 1 (is stopped and )?did not answer within 3 s", err)
    assert time.monotonic() - begun < 3 + 3 + 30 + 10  # timeout, diagnosis, the launcher's grace, slack
    assert json.loads((out / "result.json").read_text())["status"] == "failed"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("processes", [1, 2])
def test_a_signal_leaves_a_checkpoint_and_the_run_goes_on_by_the_command_that_it_prints(
    tmp_path, expected, number, code, processes
):
    out = tmp_path / "the user's run"
    given = (
        "train", *EXACT, "execution={checkpoint_seconds: 1000, log_steps: 1}", "--processes", str(processes),
        "--out", str(out),
    )  # fmt: skip
    started = Started(*given, environment={"BATCHSCALE_DATA": ""})
    started.wait_for_step(out, 2)
    os.kill(started.process.pid, number)
    found, _, err = started.end()
    assert found == code, err
    assert "Traceback" not in err
    assert json.loads((out / "environment.json").read_text())["command"] == ["batchscale", *given]
    steps = [int(f.name.removeprefix("step-")) for f in (out / "checkpoints").iterdir()]
    lines = [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert max(steps) == max(lines)
    command = err.splitlines()[-1].partition("go on with: ")[2]
    assert shlex.split(command) == ["batchscale", *given, "--resume=auto"]
    after = result(*shlex.split(command)[1:])
    assert after["weights_sha256"] == expected["weights_sha256"]


def test_max_restarts_goes_on_from_the_last_checkpoint(tmp_path, expected):
    out = tmp_path / "run"
    started = Started(
        "train", *EXACT, *EVERY_STEP, "--processes", "2", "--max-restarts", "2", "--out", str(out), "--json"
    )
    started.wait_for_step(out, 5)
    os.kill(started.rank(1), signal.SIGKILL)
    code, stdout, err = started.end()
    assert code == 0, err
    assert json.loads(stdout)["weights_sha256"] == expected["weights_sha256"]
    assert len(json.loads((out / "environment.json").read_text())["earlier"]) == 1


def test_plain_torchrun_works_too(tmp_path, expected):
    out = tmp_path / "run"
    code, stdout, err = run(
        "--nproc-per-node=2", f"--master-port={free_port()}", "--master-addr=127.0.0.1",
        "-m", "batchscale", "train", *EXACT, "--out", str(out), "--json",
        module="torch.distributed.run", environment={"GLOO_SOCKET_IFNAME": "lo", "BATCHSCALE_DATA": ""},
    )  # fmt: skip
    assert code == 0, err
    assert json.loads(stdout)["weights_sha256"] == expected["weights_sha256"]
    words = json.loads((out / "environment.json").read_text())["command"]
    assert words[:2] == ["torchrun", "--nproc-per-node=2"]
    assert words[words.index("-m") :] == ["-m", "batchscale", "train", *EXACT, "--out", str(out), "--json"]


def test_two_hosts_become_one(tmp_path, expected):
    """torchrun --nnodes=1:2: one host is lost, the other one goes on with a smaller world, to the same bits."""
    out, port = tmp_path / "run", free_port()
    torchrun = (
        "--nnodes=1:2", "--nproc-per-node=1", "--max-restarts=3", "--rdzv-backend=c10d", "--rdzv-id=job",
        f"--rdzv-endpoint=127.0.0.1:{port}", "--local-addr=127.0.0.1",
        "--rdzv-conf=last_call_timeout=5,keep_alive_interval=1,keep_alive_max_attempt=2",
        "-m", "batchscale", "train", *EXACT, *EVERY_STEP, "epochs=12", "--out", str(out), "--json",
    )  # fmt: skip
    whole = result("train", *EXACT, "epochs=12", "--out", str(tmp_path / "whole"))
    environment = {"GLOO_SOCKET_IFNAME": "lo"}
    first = Started(*torchrun, module="torch.distributed.run", environment=environment)
    time.sleep(1.0)  # the first host holds the rendezvous
    second = Started(*torchrun, module="torch.distributed.run", environment=environment)
    second.wait_for_step(out, 5)
    assert json.loads((out / "environment.json").read_text())["processes"] == 2
    second.kill_all()
    second.end()
    code, stdout, err = first.end()
    assert code == 0, err
    found = json.loads(stdout)
    assert found["weights_sha256"] == whole["weights_sha256"]
    assert found["processes"] == 1
