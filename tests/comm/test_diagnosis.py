"""Only the silent are named, by few requests of thousands of ranks; in virtual time, with the product's own code."""

import random

import pytest
import torch.distributed as dist
from support.simulated_store import Killed, Simulation

from batchscale.comm.world import diagnosis
from batchscale.comm.world.diagnosis import Doing, Verdict, ask, diagnose, settle_seconds, tell

RATE = 20_000
GRADIENTS = Doing("all-reduce of gradients", "1000 x float32", 7, timed_out=True)


def asked(size, silent=(), doings=None, rate=RATE, killed=(), slow=None):
    """What every rank but the silent ones finds, by rank, and the simulation; their failures come within 0.05 s.

    A reader or the store dies after a second; a slow store becomes so then.
    """
    simulation = Simulation(rate)
    ranks = [rank for rank in range(size) if rank not in silent]
    draw = random.Random(size)
    starts = [draw.uniform(0, 0.05) for _ in ranks]
    first = ranks[min(range(len(ranks)), key=starts.__getitem__)]
    if "reader" in killed:
        simulation.at(1.0, lambda: simulation.ranks[ranks.index(first)].kill())
    if "store" in killed:
        simulation.at(1.0, simulation.die)
    if slow:
        simulation.at(1.0, lambda: setattr(simulation, "service_seconds", slow))
    outcomes = simulation.run(
        [
            lambda store, rank=rank: ask(store, rank, size, (doings or {}).get(rank, GRADIENTS), simulation.clock)
            for rank in ranks
        ],
        starts,
    )
    return dict(zip(ranks, outcomes, strict=True)), simulation


@pytest.mark.parametrize(
    ("size", "silent"),
    [
        (1000, [333]),
        (1000, [0]),
        (1000, [17, 999]),
        (8, [0]),
        (2, [1]),
        pytest.param(4096, [4095], marks=pytest.mark.slow),
    ],
)
def test_only_the_silent_are_named(size, silent):
    verdicts, simulation = asked(size, silent)
    whole = Verdict([(GRADIENTS, sorted(verdicts))], silent, True)
    assert all(verdict == whole for verdict in verdicts.values())
    requests = sorted(rank.store.requests for rank in simulation.ranks)
    assert requests[-3:-1] <= [7, 7]  # of all but the one that reads; rank 0 waits for the readers, too
    assert requests[-1] <= 12 + 2 * len(silent) * (size.bit_length() + 1)
    assert settle_seconds(size) < simulation.ended_at < settle_seconds(size) + 3


def test_whoever_only_tells_is_no_silent_one():
    """A rank that found the dead one in shared memory tells, and asks nobody."""
    simulation = Simulation(RATE)
    functions = [lambda store, rank=rank: ask(store, rank, 6, GRADIENTS, simulation.clock) for rank in range(3)]
    *verdicts, _ = simulation.run([*functions, lambda store: tell(store, 3, GRADIENTS)])
    assert all(verdict.silent == [4, 5] for verdict in verdicts)


def test_nobody_waits_where_everyone_tells():
    verdicts, simulation = asked(1000, doings={5: Doing("all-reduce of counts"), 6: Doing("all-reduce of counts")})
    assert simulation.ended_at < 1.0
    groups = dict(verdicts[0].groups)
    assert groups == {
        GRADIENTS: [rank for rank in range(1000) if rank not in (5, 6)],
        Doing("all-reduce of counts"): [5, 6],
    }
    assert all(verdict == verdicts[0] for verdict in verdicts.values())
    assert sorted(rank.store.bytes for rank in simulation.ranks)[-2] < 1000  # of all but the one that reads


def test_another_reads_where_the_reader_dies():
    verdicts, _ = asked(64, [9], killed=["reader"])
    assert sum(isinstance(verdict, Killed) for verdict in verdicts.values()) == 1
    assert all(verdict.silent == [9] for verdict in verdicts.values() if isinstance(verdict, Verdict))
    assert sum(isinstance(verdict, Verdict) for verdict in verdicts.values()) == 62


def test_a_store_that_dies_fails_the_question():
    outcomes, _ = asked(8, [3], killed=["store"])
    assert all(isinstance(outcome, dist.DistNetworkError) for outcome in outcomes.values())


def test_however_slow_the_store_only_silent_ones_are_named():
    size, silent, wholes = 24, [3, 9, 10, 15, 20], set()
    for service_seconds in (0.01, 0.02, 0.05, 0.1, 0.2, 0.4):
        verdicts, _ = asked(size, silent, slow=service_seconds)
        for verdict in filter(None, verdicts.values()):
            assert verdict.silent == silent[: len(verdict.silent)] != []
            assert verdict.whole == (verdict.silent == silent)
            wholes.add(verdict.whole)
    assert wholes == {True, False}


@pytest.mark.parametrize(
    ("verdict", "message"),
    [
        (Verdict([(GRADIENTS, [0, 1])], [2, 3], True), "rank 2, 3 did not answer within 60 s (reason)"),
        (Verdict([(GRADIENTS, [0, 1])], [2, 3], False), "at least rank 2, 3 did not answer within 60 s (reason)"),
        (
            Verdict([(Doing("x", timed_out=True, seconds=183.0), [0]), (GRADIENTS, [1])], [2], True),
            "rank 2 did not answer within 183 s (reason)",  # whoever was hung up on tells how long the other waited
        ),
        (Verdict([(Doing("x"), [0, 1])], [2], True), "rank 2 died (reason)"),
        (Verdict([(Doing("x"), [0])], [1], True), "reason"),  # this rank itself, which came too late
        (
            Verdict([(Doing("x"), [0, 1, 2]), (Doing("y"), [3, 4])], [], True),
            "rank 3, 4 in y, this rank in x",
        ),
        (Verdict([(Doing("x"), [0, 1]), (Doing("x", call=2), list(range(2, 9)))], [], True),
         "rank 2-8 at call 2, this rank at call 0"),
        (None, "rank 0 or the launcher, whichever keeps the store of the job, died (reason)"),
    ],
)  # fmt: skip
def test_a_verdict_in_words(monkeypatch, verdict, message):
    monkeypatch.setattr(diagnosis, "_ask_in_time", lambda *_: verdict)
    assert diagnose(dist.HashStore(), None, 1, 9, 60.0, Doing("x"), "reason")[0] == message


def test_a_verdict_goes_through_the_store_in_few_bytes():
    verdict = Verdict([(GRADIENTS, [*range(9), *range(10, 4096)])], [9], True)
    assert Verdict.from_json(verdict.to_json()) == verdict
    assert len(verdict.to_json()) < 300


@pytest.mark.parametrize("kind", ["hash", "file"])
def test_other_stores_of_torch(monkeypatch, tmp_path, kind):
    monkeypatch.setattr(diagnosis, "SETTLE_SECONDS", 0.2)
    store = dist.HashStore() if kind == "hash" else dist.FileStore(str(tmp_path / "store"), 3)
    tell(store, 2, GRADIENTS)
    message, lost = diagnose(store, None, 0, 3, 60.0, GRADIENTS, "reason")
    assert not lost
    assert message == "rank 1 did not answer within 60 s (reason)"


def test_a_store_that_never_answers_is_given_up(monkeypatch):
    class Stopped:
        def set(self, *_):
            pass

        def add(self, *_):
            diagnosis.threading.Event().wait()

    monkeypatch.setattr(diagnosis, "SETTLE_SECONDS", 0.1)
    message, lost = diagnose(Stopped(), None, 1, 4, 60.0, GRADIENTS, "reason")
    assert lost
    assert (
        message == "rank 0 or the launcher, whichever keeps the store of the job, did not answer within 60 s (reason)"
    )


def test_a_rank_that_failed_by_itself_is_the_reason(monkeypatch):
    groups = [(Doing("gradients"), [0, 2]), (Doing(f"{diagnosis.FAILED}photo.jpg: damaged"), [1])]
    monkeypatch.setattr(diagnosis, "_ask_in_time", lambda *_: Verdict(groups, [], True))
    message, lost = diagnose(dist.HashStore(), None, 0, 3, 60.0, Doing("gradients"), "Connection closed by peer")
    assert (message, lost) == ("rank 1 failed: photo.jpg: damaged", False)


def test_where_the_source_of_the_backend_lay_is_left_out():
    error = RuntimeError("[/__w/pytorch/third_party/gloo/transport/tcp/pair.cc:561] Connection closed by peer [::1]:9")
    assert diagnosis.first_line(error) == "Connection closed by peer [::1]:9"
