"""Few requests find who is missing; ranks in words; the simulated store answers as torch's does."""

import itertools
import math
from datetime import timedelta

import pytest
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st
from support.simulated_store import Simulation
from support.worlds import free_port

from batchscale.comm.world.store import absent, come, in_words, read_all, spans_of


class Kept:
    """Keys that are there, and how often someone asked."""

    def __init__(self, keys):
        self.keys, self.checks = set(keys), 0

    def check(self, keys):
        self.checks += 1
        return self.keys.issuperset(keys)


@given(st.integers(1, 300).flatmap(lambda size: st.tuples(st.just(size), st.sets(st.integers(0, size - 1)))))
def test_the_missing_ones_are_found_by_halving(case):
    size, missing = case
    keys = [str(rank) for rank in range(size)]
    store = Kept(set(keys) - {str(rank) for rank in missing})
    assert absent(store, keys, 0.0, lambda: 0.0) == (sorted(missing), True)
    count = len(missing)
    assert store.checks <= (2 * count * (math.ceil(math.log2(size / count)) + 1) + 1 if count else 1)
    assert store.checks < 2 * size


def test_a_search_that_takes_too_long_names_the_lowest():
    store, keys = Kept({"0", "1", "4"}), [str(rank) for rank in range(8)]
    assert absent(store, keys, 1.0, lambda: 2.0) == ([2], False)


@pytest.mark.parametrize(
    ("ranks", "words"),
    [
        ([], ""),
        ([1], "rank 1"),
        ([2, 1, 0, 2], "rank 0, 1, 2"),
        ([3, 17, 18, 19, 20], "rank 3, 17-20"),
        (range(1000), "rank 0-999"),
        (range(0, 40, 2), "rank 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30 and 4 more"),
    ],
)
def test_ranks_in_words(ranks, words):
    assert in_words(ranks) == words


@given(st.sets(st.integers(0, 50)))
def test_spans_hold_the_ranks_and_do_not_touch(ranks):
    spans = spans_of(list(ranks))
    assert [rank for first, last in spans for rank in range(first, last + 1)] == sorted(ranks)
    assert all(last + 1 < first for (_, last), (first, _) in itertools.pairwise(spans))


def answers(store):
    """What a store answers to one after another of everything that is used of it."""
    store.set("a", "1")
    seen = [store.get("a"), store.add("n", 3), store.add("n", 0), store.get("n")]
    store.multi_set(["b", "c"], ["2", "3"])
    seen += [store.multi_get(["c", "a", "b"]), read_all(store, ["a", "c"])]
    seen += [store.check(["a", "b"]), store.check(["a", "z"]), store.has_extended_api()]
    seen += [come(store, ["a", "c"], 1.0), come(store, ["a", "z"], 0.05), come(store, [], 0.0), come(store, ["z"], 0.0)]
    with pytest.raises(dist.DistStoreError):
        store.wait(["z"], timedelta(seconds=0.05))
    store.set("a", "4")
    seen += [store.compare_set("o", "me", "me"), store.check(["o"]), store.compare_set("a", "me", "me")]
    seen += [store.compare_set("a", "4", "5"), store.compare_set("p", "", "6"), store.get("p")]
    return [*seen, store.get("a")]


def test_the_simulated_store_answers_as_a_real_one():
    real = dist.TCPStore("127.0.0.1", free_port(), is_master=True, wait_for_workers=False)
    (simulated,) = Simulation(50_000).run([answers])
    assert simulated == answers(dist.PrefixStore("x", real))
    assert simulated == answers(dist.HashStore())


def test_a_file_is_read_key_by_key(tmp_path):
    store = dist.FileStore(str(tmp_path / "store"), 1)
    for key, value in {"a": "1", "b": "2"}.items():
        store.set(key, value)
    assert not store.has_extended_api()
    assert read_all(store, ["b", "a"]) == [b"2", b"1"]


def test_the_simulated_server_answers_at_its_rate():
    simulation = Simulation(1000)
    simulation.run([lambda store: [store.add("n", 1) for _ in range(10)]] * 50)
    assert simulation.keys["n"] == b"500"
    assert simulation.ended_at == pytest.approx(500 / 1000, rel=0.01)
    assert all(rank.store.requests == 10 for rank in simulation.ranks)


def test_a_lost_connection_is_no_late_answer():
    simulation = Simulation(1000)
    simulation.at(0.5, simulation.die)
    (error,) = simulation.run([lambda store: come(store, ["z"], 1.0)])
    assert isinstance(error, dist.DistNetworkError)
