"""How long ranks wait for each other: longer at the start, in evaluations, and beside a rank that is busy."""

import os
import signal
import time

import pytest
import torch
import torch.distributed as dist
from support.worlds import CPU, in_processes, survivors

from batchscale.comm import Reducer, World
from batchscale.comm.world import diagnosis, patience
from batchscale.comm.world.patience import Patience, Watch
from batchscale.errors import ProcessError


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands until it is set."""
    now = [1000.0]
    monkeypatch.setattr(patience.time, "monotonic", lambda: now[0])

    def passes(seconds):
        now[0] += seconds
        return now[0]

    return passes


def test_the_bound_is_long_until_the_start_and_in_what_is_dealt_unevenly(clock):
    bounds = Patience(60, 600)
    begun = clock(0)
    clock(599)
    assert not bounds.over(begun)
    bounds.started()
    assert bounds.over(begun)
    with bounds.longer():
        assert not bounds.over(begun)
        clock(2)
        assert bounds.over(begun)
    assert (bounds.seconds, bounds.longest_seconds, bounds.group_seconds) == (60, 600, 660)


@pytest.mark.parametrize("startup", [None, 5, 60])
def test_one_bound_stays_one_bound(clock, startup):
    bounds = Patience(60, startup)
    assert not bounds.changes
    assert (bounds.seconds, bounds.group_seconds) == (60, 60)
    begun = clock(0)
    clock(60)
    assert not bounds.over(begun)
    clock(1)
    assert bounds.over(begun)


def test_a_busy_rank_is_waited_for_and_has_a_whole_bound_to_come_afterwards(clock):
    store = dist.HashStore()
    writer, waiter = Patience(60, 600), Patience(60, 600)
    for bounds in (writer, waiter):
        bounds.by(store)
        bounds.started()
    begun = clock(0)
    with writer.busy():
        clock(61)
        assert not waiter.over(begun)
        clock(61)
        assert not waiter.over(begun)
    clock(59)
    assert not waiter.over(begun)
    clock(2)
    assert waiter.over(begun)  # it came not: it has hung after all


def test_no_rank_is_waited_for_longer_than_the_longest_bound(clock):
    store = dist.HashStore()
    hung, waiter = Patience(60, 600), Patience(60, 600)
    for bounds in (hung, waiter):
        bounds.by(store)
        bounds.started()
    begun = clock(0)
    with hung.busy():
        for _ in range(10):
            clock(60)
            assert not waiter.over(begun)
        clock(61)
        assert waiter.over(begun)


def test_a_long_wait_at_the_start_is_noted(capsys):
    with Patience(0.05, 9).noted("still waiting"):
        time.sleep(0.01)
    assert capsys.readouterr().err == ""
    with Patience(0.05, 9).noted("still waiting"):
        time.sleep(0.5)
    assert capsys.readouterr().err == "note: still waiting after 0.05 s; giving up after 9 s\n"
    with Patience(0.05).noted("waiting again"):
        time.sleep(0.2)
    assert capsys.readouterr().err == ""


def test_a_store_that_never_answers_costs_seconds_and_says_nothing(monkeypatch):
    monkeypatch.setattr(patience, "SETTLE_SECONDS", 0.05)
    silent = type("Silent", (), {"add": lambda *_: time.sleep(30), "check": lambda *_: time.sleep(30)})()
    bounds = Patience(0.01, 600)
    bounds.by(silent)
    bounds.started()
    begun = time.monotonic()
    assert bounds.over(begun - 1)
    assert not bounds.someone_failed()
    assert time.monotonic() - begun < 20


def test_an_exchange_that_ends_in_time_is_not_hung_up_on():
    hung_up = []
    bounds = Patience(0.2, 0.4)
    watch = Watch()
    watch.start(bounds, lambda: hung_up.append(1))
    quick, slow = watch.begin(), watch.begin()
    assert not watch.end(quick)
    while not hung_up:
        time.sleep(0.01)
    assert watch.end(slow)
    watch.close()
    assert hung_up == [1]


TIMEOUT, STARTUP = 4.0, 60.0


def connected():
    diagnosis.SETTLE_SECONDS = 2.0
    return World.connect(CPU, TIMEOUT, STARTUP)


def late_and_busy(rank):
    """A rank late before the start, one busy after it: each longer than the usual bound."""
    world = connected()
    if rank == 1:
        time.sleep(2 * TIMEOUT)  # loads its data
    sizes = world.gather(rank)
    reducer = Reducer(world)
    world.patience.started()
    totals = []
    for algorithm in ("builtin", "shared_memory", "ring"):
        if rank == 0:
            with world.patience.busy():
                time.sleep(1.5 * TIMEOUT)  # writes a checkpoint
        tensor = torch.ones(5)
        reducer.all_reduce(tensor, algorithm=algorithm)
        totals.append(tensor.sum().item())
    made = world.from_rank_zero(lambda: time.sleep(1.5 * TIMEOUT) or "scores")
    reducer.close()
    world.close()
    return sizes, totals, made


@pytest.mark.slow
def test_healthy_ranks_are_waited_for():
    assert in_processes(2, late_and_busy) == [([0, 1], [10.0] * 3, "scores")] * 2


def stopped(rank, how):
    world = connected()
    world.gather(rank)
    world.patience.started()
    world.all_reduce(torch.ones(9))
    if rank == 1:
        os.kill(os.getpid(), signal.SIGSTOP)
    start = time.monotonic()
    exchange = {"sum": lambda: world.all_reduce(torch.ones(9)), "gather": lambda: world.gather(rank)}[how]
    with pytest.raises(ProcessError) as raised:
        exchange()
    return str(raised.value), time.monotonic() - start


@pytest.mark.slow
@pytest.mark.parametrize("how", ["sum", "gather"])
def test_after_the_start_a_silent_rank_is_named_within_the_usual_bound(how):
    for error, seconds in survivors(3, 1, stopped, how).values():
        assert "rank 1 did not answer within 4 s" in error
        assert seconds < STARTUP / 2
