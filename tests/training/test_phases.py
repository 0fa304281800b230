"""Where the time of a step goes: by a host's clock on a CPU; on a GPU by the device's own, which nobody waits for."""

import json
import sys
import time

import pytest
import torch
from support.clocks import VirtualClock, VirtualDevice
from support.runs import RECIPE
from support.runs import data as data

import batchscale
from batchscale.build import assembly
from batchscale.run import run as runs
from batchscale.training.clock import EventClock, HostClock, clock_of
from batchscale.training.loop import Loop
from batchscale.training.phases import PhaseSeconds
from batchscale.training.step import StepAnswer

DATA, FORWARD, BACKWARD, AGGREGATION, UPDATE = 0.5, 2.0, 4.0, 1.0, 0.25
"""Seconds that a step's work lasts on a device that the tests make; the passes of a step are two."""
FIXED = ("numerics.micro_batch=16", "execution.log_steps=1", "epochs=1")


def train(data, out, *overrides):
    return batchscale.train(RECIPE, [*FIXED, *overrides], data=data, out=out, quiet=True)


def lines(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture
def device(monkeypatch):
    """A run whose work is launched onto a device: the host goes on, and waits where it reads a step's values."""
    device = VirtualDevice()

    def behind(owner, name, work):
        function = getattr(owner, name)

        def working(*arguments, **named):
            work()
            return function(*arguments, **named)

        monkeypatch.setattr(owner, name, working)

    def parts(recipe, world, dataset, **how):
        parts = building(recipe, world, dataset, **how)
        step = parts.step
        behind(step.statistics, "begin_pass", lambda: device.launch(FORWARD))
        behind(step.aggregator, "add", lambda: device.launch(BACKWARD))
        behind(step.loss_scale, "unscale", lambda: device.launch(UPDATE))
        attempts = step.aggregator.attempts

        def summing(*apart):
            yield from attempts(*apart)
            device.launch(AGGREGATION)

        step.aggregator.attempts = summing
        return parts

    building = runs.build
    monkeypatch.setattr(runs, "build", parts)
    monkeypatch.setattr(assembly, "clock_of", lambda _: EventClock(device.event))
    behind(StepAnswer, "read", device.wait)
    return device


@pytest.mark.parametrize("lag", [0, 2])
@pytest.mark.parametrize("log_steps", [1, 2])
def test_on_a_gpu_the_times_of_the_phases_are_those_of_the_device(data, tmp_path, monkeypatch, device, lag, log_steps):
    """The host has launched a step before the device has begun it; and it waits for none of the events."""
    monkeypatch.setattr(runs, "Loop", lambda course: Loop(course, lag=lag))
    train(data, tmp_path / "run", f"execution.log_steps={log_steps}")
    phases = {"data": 0.0, "forward": 2 * FORWARD, "backward": 2 * BACKWARD, "aggregation": AGGREGATION}
    for line in lines(tmp_path / "run"):
        steps = line["interval_steps"]
        assert line["phase_seconds"] == {name: steps * s for name, s in {**phases, "update": UPDATE}.items()}
        assert line["images_per_second"] == round(32 / sum([*phases.values(), UPDATE]), 2)
    assert device.waits == []


def test_data_is_the_time_that_the_device_waited_for_it(data, tmp_path, monkeypatch, device):
    passes = batchscale.data.feed.Feed.passes

    def slow(feed, step):
        device.host += DATA
        return passes(feed, step)

    monkeypatch.setattr("batchscale.data.feed.Feed.passes", slow)
    train(data, tmp_path / "run")
    assert {line["phase_seconds"]["data"] for line in lines(tmp_path / "run")} == {DATA}
    # What comes while the device still works on the steps before costs nothing.
    monkeypatch.setattr(runs, "Loop", lambda course: Loop(course, lag=3))
    train(data, tmp_path / "late", "execution.log_steps=4")
    assert [line["phase_seconds"]["data"] for line in lines(tmp_path / "late")] == [DATA]


def test_on_a_gpu_no_look_at_the_hosts_clock_spans_a_launch(data, tmp_path, monkeypatch, device):
    """Nothing of the step, the loop, or the phases looks at it at all."""
    perf_counter, seen = time.perf_counter, set()

    def watched():
        seen.add(sys._getframe(1).f_globals["__name__"])
        return perf_counter()

    monkeypatch.setattr(time, "perf_counter", watched)
    train(data, tmp_path / "run")
    assert "batchscale.training.due" in seen  # an evaluation, which ends with its sums on the host
    assert not seen & {f"batchscale.training.{name}" for name in ("step", "loop", "phases", "clock")}


def test_on_a_cpu_the_phases_are_the_differences_between_looks_at_the_clock():
    clock = VirtualClock()
    seconds = PhaseSeconds(clock)
    for phase, lasts in (("data", 1), ("forward", 2), ("backward", 3), ("forward", 4), ("backward", 5)):
        seconds.begin(phase)
        clock.now += lasts
    seconds.begin("aggregation")
    clock.now += 6
    seconds.begin("update")
    clock.now += 7
    seconds.end()
    clock.now += 100  # an evaluation between the steps is nobody's
    seconds.begin("data")
    clock.now += 8
    seconds.begin("forward")
    seconds.end()
    assert seconds.take() == {"data": 9, "forward": 6, "backward": 8, "aggregation": 6, "update": 7}
    assert seconds.take() == dict.fromkeys(PhaseSeconds.NAMES, 0)


def test_a_repeated_attempt_of_exact_mode_is_counted_like_the_first(data, tmp_path, monkeypatch):
    """The first step always runs twice: its passes are forward and backward, the sum between is aggregation."""
    phases = []
    monkeypatch.setattr(PhaseSeconds, "begin", lambda self, phase: phases.append(phase) or 0.0)
    monkeypatch.setattr(PhaseSeconds, "end", lambda self: phases.append("end"))
    train(data, tmp_path / "run", "numerics.exact=true", "numerics.micro_batch=8", "minibatch.workers=1")
    attempt = ["forward", "backward", "aggregation"]
    assert phases[: phases.index("end") + 1] == ["data", "forward", *attempt, *attempt, "update", "end"]


def test_the_clock_is_the_devices():
    assert isinstance(clock_of(torch.device("cpu")), HostClock)
    assert isinstance(clock_of(torch.device("cuda", 1)), EventClock)


def test_a_step_keeps_no_events_that_the_device_has_passed(monkeypatch):
    device = VirtualDevice()
    seconds = PhaseSeconds(EventClock(device.event))
    for _ in range(100):
        for phase in ("data", "forward", "backward", "aggregation", "update"):
            seconds.begin(phase)
            device.launch(0.5)
        seconds.end()
        assert len(seconds._laps) <= 12  # two steps
        device.wait()
    assert seconds.take()["data"] == 50
    assert device.waits == []
