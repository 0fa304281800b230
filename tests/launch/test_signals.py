"""Signals to stop: by name or by a closed terminal, to one process or to all, ignored, and twice."""

import json
import os
import signal
import sys

import pytest
from support.dues import after
from support.launching import SMALL, Started
from torch.distributed.elastic.multiprocessing.api import SubprocessContext, _terminate_process_handler

from batchscale.cli import main
from batchscale.launch import processes as launching
from batchscale.launch.signals import RUNS_AT_ONCE, StopSignals, final, heard
from batchscale.training.due import DUES

HUP, USR1, TERM = signal.SIGHUP, signal.SIGUSR1, signal.SIGTERM
CODES = {signal.SIGINT: 130, TERM: 143, HUP: 129, USR1: 138}


@pytest.fixture(autouse=True)
def handlers():
    """The default actions within a test, whatever started the tests; those of before after it."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in (HUP, USR1)}
    before[TERM] = signal.getsignal(TERM)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", CODES)
def test_a_signal_stops_a_run_with_a_checkpoint_and_its_exit_code(tmp_path, monkeypatch, capsys, number):
    monkeypatch.setitem(DUES, "signal", after(2, lambda course: signal.raise_signal(number)))
    out = tmp_path / "run"
    assert main(["train", *SMALL, "numerics.threads=1", "--out", str(out)]) == CODES[number]
    assert f"stopped by {number.name} after step 3; go on with: batchscale train" in capsys.readouterr().err
    assert [f.name for f in (out / "checkpoints").iterdir()] == ["step-0000000003"]


def test_what_is_ignored_or_has_a_use_of_its_own_stays_so():
    signal.signal(HUP, signal.SIG_IGN)
    used = []
    signal.signal(USR1, lambda number, frame: used.append(number))
    with StopSignals() as signals:
        signal.raise_signal(HUP)
        signal.raise_signal(USR1)
        assert not signals.requested()
    assert used == [USR1]
    assert heard() == [signal.SIGINT, TERM]


def test_a_closed_terminal_tells_twice_and_a_job_that_is_stopped_whole_too(monkeypatch):
    with StopSignals() as signals:
        for number in (HUP, HUP, USR1, USR1):
            signal.raise_signal(number)
        assert signals.received == HUP
    a_launchers = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    for watched in ({RUNS_AT_ONCE: "1"}, a_launchers):  # from outside, and from who watches over it
        with monkeypatch.context() as environment:
            for name, value in watched.items():
                environment.setenv(name, value)
            assert not final()
            with StopSignals() as signals:
                for _ in range(2):
                    signal.raise_signal(TERM)
                assert signals.received == TERM


@pytest.mark.parametrize("number", [signal.SIGINT, TERM])
def test_a_second_one_of_a_person_acts_as_usual(number):
    assert number in final()
    with StopSignals() as signals:
        signal.raise_signal(number)
        assert signals.received == number
        usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        assert signal.getsignal(number) is usual
    assert signal.getsignal(number) is not signals._note


def launched(monkeypatch, during):
    """Launch a job whose agent does this in place of starting processes."""

    def agent(config, program):
        assert config.signals_to_handle == ""
        return lambda *arguments: during()

    monkeypatch.setattr("torch.distributed.launcher.api.elastic_launch", agent)
    launching.launch(["train"], 2, 0, ["batchscale"], "way on")


@pytest.mark.parametrize("number", CODES)
def test_the_launcher_hands_a_signal_on_and_ends_with_its_code(monkeypatch, number):
    def during():
        try:
            signal.raise_signal(number)
        finally:
            if number in (HUP, USR1):
                signal.raise_signal(number)  # a second one does not cut the wait for the checkpoint short

    with pytest.raises(launching.Interrupted) as stopped:
        launched(monkeypatch, during)
    assert stopped.value.exit_code == CODES[number]
    assert signal.getsignal(HUP) is signal.SIG_DFL  # torch leaves handlers of its own


@pytest.mark.parametrize("name", ["LaunchConfig", "elastic_launch"])
def test_a_signal_before_the_agent_starts_is_a_stop_too(monkeypatch, name):
    monkeypatch.setattr(f"torch.distributed.launcher.api.{name}", lambda *_, **__: signal.raise_signal(TERM))
    with pytest.raises(launching.Interrupted) as stopped:
        launching.launch(["train"], 2, 0, ["batchscale"], "way on")
    assert stopped.value.exit_code == 143


def test_torchs_agent_sets_no_handlers_where_it_is_told_so(monkeypatch):
    """A property of torch: its change would else show in slow tests alone."""
    start, numbers = SubprocessContext._start, (*CODES, signal.SIGQUIT)
    handlers = []

    def started(context):
        handlers.extend(signal.getsignal(number) for number in numbers)
        start(context)

    monkeypatch.setattr(SubprocessContext, "_start", started)
    monkeypatch.setattr(sys, "executable", "true")  # a program that takes any arguments and ends well
    launching.launch(["train"], 1, 0, ["batchscale"], "way on")
    assert len(handlers) == len(numbers)
    assert _terminate_process_handler not in handlers


def test_the_launcher_takes_back_no_ignored_signal(monkeypatch):
    signal.signal(HUP, signal.SIG_IGN)
    launched(monkeypatch, lambda: signal.raise_signal(HUP))
    assert signal.getsignal(HUP) is signal.SIG_IGN


@pytest.mark.slow
@pytest.mark.parametrize("to", ["launcher", "everyone", "one of two"])
def test_below_nohup_a_run_on_two_processes_outlives_a_hang_up_and_stops_by_usr1(tmp_path, to):
    out = tmp_path / "run"
    started = Started(
        "train", *SMALL, "epochs=5000", "execution.checkpoint_seconds=1000", "--processes", "2", "--out", str(out),
        prefix=("nohup",),
    )  # fmt: skip
    started.wait_for_step(out, 2)
    started.signal_all(HUP)
    lines = (out / "metrics.jsonl").read_text().count("\n")
    started.wait_for_step(out, lines + 5)
    if to == "everyone":
        started.signal_all(USR1)
    else:
        os.kill(started.process.pid if to == "launcher" else started.rank(1), USR1)
    code, _, err = started.end()
    assert code == 138, err
    assert "stopped by SIGUSR1" in err.splitlines()[-1]
    steps = [int(f.name.removeprefix("step-")) for f in (out / "checkpoints").iterdir()]
    assert max(steps) == json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])["step"] >= 7


@pytest.mark.slow
def test_a_hang_up_stops_a_run_on_two_processes_with_a_checkpoint(tmp_path):
    out = tmp_path / "run"
    started = Started("train", *SMALL, "epochs=5000", "--processes", "2", "--out", str(out))
    started.wait_for_step(out, 2)
    started.signal_all(HUP)  # from the kernel
    os.kill(started.process.pid, HUP)  # and from the shell
    code, _, err = started.end()
    assert code == 129, err
    assert list((out / "checkpoints").glob("step-*"))
    assert "Traceback" not in err
