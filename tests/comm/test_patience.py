"""How long ranks wait for each other: longer at the start, in evaluations, and beside a rank that is busy."""

import json
import os
import signal
import threading
import time
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from support.worlds import CPU, in_processes, survivors

from batchscale.comm import Reducer, World
from batchscale.comm.world import diagnosis, patience
from batchscale.comm.world.exchanges import Exchanges
from batchscale.comm.world.patience import Patience, Watch
from batchscale.errors import ProcessError
from batchscale.system import notes


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


@pytest.fixture
def pair(monkeypatch):
    """The bounds of two ranks after the start, on one store; and what returns once the first has beaten again."""
    monkeypatch.setattr(patience, "_BEAT_SECONDS", 0.001)
    store = dist.HashStore()
    bounds = Patience(60, 600), Patience(60, 600)
    for each in bounds:
        each.by(store)
        each.started()

    def beats():
        earlier = store.add("beats", 0)
        while store.add("beats", 0) == earlier:
            time.sleep(0.001)

    return *bounds, beats


def test_a_busy_rank_is_waited_for_and_has_a_whole_bound_to_come_afterwards(clock, pair):
    writer, waiter, beats = pair
    begun = clock(0)
    with writer.busy():
        for _ in range(2):
            beats()
            clock(61)
            assert not waiter.over(begun)
    clock(59)
    assert not waiter.over(begun)
    clock(2)
    assert waiter.over(begun)  # it came not: it has hung after all
    assert waiter.lasted(begun) == 183  # and not 60


def test_no_rank_is_waited_for_longer_than_the_longest_bound(clock, pair):
    hung, waiter, beats = pair
    begun = clock(0)
    with hung.busy():
        for _ in range(9):
            beats()
            clock(61)
            assert not waiter.over(begun)
        beats()
        clock(61)
        assert waiter.over(begun)


def test_a_rank_that_dies_while_it_is_busy_is_waited_for_no_longer(clock, pair, monkeypatch):
    """It was, for the longest bound: nobody took back its word."""
    _, waiter, _ = pair
    monkeypatch.setattr(patience, "_BEAT_SECONDS", 1e9)
    dying = Patience(1e6, 2e6)
    dying.by(waiter._store)
    dying.started()
    begun = clock(0)
    with dying.busy():
        while not dying._store.add("beats", 0):  # its first and only beat
            time.sleep(0.001)
        clock(61)
        assert not waiter.over(begun)
        clock(61)
        assert waiter.over(begun)
    assert dying._store.add("busy", 0) == 0


def test_what_is_told_of_a_wait_is_its_bound_or_what_it_lasted(clock):
    bounds = Patience(60, 600)
    begun = clock(0)
    bounds.started()
    clock(60.4)
    assert bounds.lasted(begun) == 60
    clock(140.3)
    assert bounds.lasted(begun) == 201


@pytest.mark.parametrize(("startup", "lasts", "noted"), [(9, False, False), (9, True, True), (None, True, False)])
def test_a_long_wait_at_the_start_is_noted(monkeypatch, capsys, startup, lasts, noted):
    timers = []

    def timer(seconds, function, arguments):
        timers.append(SimpleNamespace(seconds=seconds, rings=lambda: function(*arguments), is_on=None))
        timers[-1].start = lambda: setattr(timers[-1], "is_on", True)
        timers[-1].cancel = lambda: setattr(timers[-1], "is_on", False)
        return timers[-1]

    monkeypatch.setattr(patience.threading, "Timer", timer)
    monkeypatch.setattr(notes, "_noted", set())
    with Patience(5, startup).noted("still waiting"):
        assert timers[-1].seconds == 5
        if lasts and timers[-1].is_on:
            timers[-1].rings()
    assert timers[-1].is_on is False
    assert capsys.readouterr().err == "note: still waiting after 5 s; giving up after 9 s\n" * noted


def test_a_store_that_never_answers_costs_seconds_and_says_nothing(monkeypatch):
    monkeypatch.setattr(patience, "SETTLE_SECONDS", 0.05)
    silent = type("Silent", (), {"add": lambda *_: time.sleep(30), "check": lambda *_: time.sleep(30)})()
    bounds = Patience(0.01, 600)
    bounds.by(silent)
    bounds.started()
    begun = time.monotonic()
    assert bounds.over(begun - 1)
    monkeypatch.setattr(patience, "_ASK_SECONDS", 0.0)
    threads = threading.active_count()
    assert not any(bounds.someone_failed() for _ in range(50))
    assert threading.active_count() <= threads + 1  # one was left behind for each second of a healthy wait
    assert time.monotonic() - begun < 20


def test_an_exchange_that_ends_while_it_is_hung_up_on_has_failed():
    """A hang-up never comes over the next exchange: it is done before this one ends, and this one says so."""
    begun, go_on, order = threading.Event(), threading.Event(), []

    def hang_up():
        begun.set()
        go_on.wait()
        order.append("hung up")

    bounds = Patience(0.1, 0.2)
    exchanges = Exchanges(0, 2, bounds, None, str)
    exchanges._watch.start(bounds, hang_up)

    def comes_late():
        begun.wait()
        threading.Timer(0.05, go_on.set).start()
        return "the others' values"

    with pytest.raises(ProcessError, match="timed out: the others came as this rank hung up"):
        exchanges.guard(comes_late, "gather")
    assert order == ["hung up"]
    exchanges.close()


def test_a_rank_that_has_waited_in_vain_says_so_in_all_that_it_tells(monkeypatch):
    """What failed after that, because of it, was told over it: then nobody had waited, and the silent one had died."""
    monkeypatch.setattr(diagnosis, "SETTLE_SECONDS", 0.05)
    store = dist.HashStore()
    exchanges = Exchanges(0, 2, Patience(60), None, str, store)

    def fails(reason):
        raise RuntimeError(reason)

    for reason in ("Timed out waiting", "Connection closed"):
        with pytest.raises(ProcessError, match="rank 1 did not answer within 60 s"):
            exchanges.guard(lambda reason=reason: fails(reason), "sum")
        assert json.loads(store.get("alive/0"))["timed_out"]
    exchanges.tell("sum", timed_out=False)
    assert json.loads(store.get("alive/0"))["timed_out"]


def test_an_exchange_that_ends_in_time_is_not_hung_up_on(clock):
    hung_up = []
    bounds = Patience(0.2, 0.4)
    watch = Watch()
    watch.start(bounds, lambda: hung_up.append(1))
    quick, slow = watch.begin(), watch.begin()
    assert not watch.end(quick)
    clock(0.5)
    while not hung_up:
        time.sleep(0.01)
    assert watch.end(slow)
    watch.close()
    assert hung_up == [1]


TIMEOUT, STARTUP = 4.0, 60.0


def connected():
    diagnosis.SETTLE_SECONDS = 6.0
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
