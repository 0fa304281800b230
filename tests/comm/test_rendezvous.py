"""One name for everyone, whoever is killed and started anew meanwhile; in virtual time, with the product's own code."""

import itertools
import signal
import threading
from datetime import timedelta

import pytest
import torch.distributed as dist
from support.simulated_store import Killed, Simulation
from support.worlds import endings, free_port

from batchscale.comm.world.rendezvous import agree_on_name
from batchscale.errors import ProcessError, UsageError

RATE = 20_000


def arriving(simulation, rank, size, timeout_seconds=60.0):
    return lambda store: agree_on_name(store, rank, size, timeout_seconds, simulation.clock)


def everyone(simulation, size, timeout_seconds=60.0):
    return [arriving(simulation, rank, size, timeout_seconds) for rank in range(size)]


@pytest.mark.parametrize("size", [1, 2, 3, 64, 1000])
def test_one_fresh_name_for_everyone_by_few_requests(size):
    simulation = Simulation(RATE)
    names = set()
    for _ in range(2):
        first, begin = len(simulation.ranks), simulation.now
        (name,) = set(simulation.run(everyone(simulation, size)))
        names.add(name)
        requests = [rank.store.requests for rank in simulation.ranks[first:]]
        assert max(requests) <= 10  # the second finds the nonces of the first
        assert sum(requests[1:]) <= 7 * size
        assert simulation.ended_at - begin < 3
    assert len(names) == 2


def test_what_a_rank_but_the_first_sends_does_not_grow_with_the_world():
    sent = []
    for size in (16, 512):
        simulation = Simulation(RATE)
        simulation.run(everyone(simulation, size))
        sent.append(max(rank.store.bytes for rank in simulation.ranks[1:]))
    assert sent[1] < 1.1 * sent[0]


def test_whoever_does_not_arrive_is_named_to_all_who_have():
    simulation, size = Simulation(RATE), 1000
    missing = {3, *range(17, 21), 998}
    outcomes = simulation.run([f for rank, f in enumerate(everyone(simulation, size)) if rank not in missing])
    assert {str(error) for error in outcomes} == {
        "start of 1000 processes: rank 3, 17-20, 998 did not arrive in 60 s",
    }
    requests = [rank.store.requests for rank in simulation.ranks]
    assert max(requests) < 100
    assert max(requests[1:]) <= 8
    assert 60 < simulation.ended_at < 60 + 3 + 0.005 * size + 5


def test_the_mistakes_of_ranks_are_heard_by_all_each_once():
    simulation, size = Simulation(RATE), 1000
    functions = everyone(simulation, size)
    for rank in (3, *range(17, 21), 998):
        mistake = (f"node{rank}", "no such file" if rank < 20 else "unknown")
        functions[rank] = lambda store, rank=rank, mistake=mistake: agree_on_name(
            store, rank, size, 60.0, simulation.clock, mistake
        )
    outcomes = simulation.run(functions)
    assert {type(error) for error in outcomes} == {UsageError}
    assert {str(error) for error in outcomes} == {
        "rank 3, 17, 18, 19 (host node3, node17, node18 and 1 more): no such file; "
        "rank 20, 998 (host node20, node998): unknown"
    }
    assert simulation.ended_at < 3
    assert max(rank.store.requests for rank in simulation.ranks) <= 10


def test_a_mistake_of_all_is_nobodys_in_particular():
    simulation = Simulation(RATE)
    outcomes = simulation.run(
        [
            lambda store, rank=rank: agree_on_name(store, rank, 3, 60.0, simulation.clock, (f"node{rank}", "unknown"))
            for rank in range(3)
        ]
    )
    assert {str(error) for error in outcomes} == {"unknown"}


def test_the_rest_learn_that_rank_0_did_not_arrive():
    simulation = Simulation(RATE)
    outcomes = simulation.run(everyone(simulation, 8, 5.0)[1:])
    assert {str(error) for error in outcomes} == {"start of 8 processes: rank 0 did not arrive in 5 s"}


def test_a_rank_that_left_its_hello_in_an_earlier_attempt_is_named():
    simulation = Simulation(RATE)
    simulation.run(everyone(simulation, 5))
    outcomes = simulation.run([f for rank, f in enumerate(everyone(simulation, 5, 5.0)) if rank != 2])
    assert {str(error) for error in outcomes} == {"start of 5 processes: rank 2 did not arrive in 5 s"}


def test_ranks_that_come_one_by_one_over_the_hellos_of_an_earlier_attempt():
    for order in itertools.permutations(range(4)):
        simulation = Simulation(RATE)
        (old,) = set(simulation.run(everyone(simulation, 4)))
        (name,) = set(simulation.run(everyone(simulation, 4), [simulation.now + place for place in order]))
        assert name != old


def test_a_nonce_that_was_replaced_before_it_got_a_name_gets_none():
    simulation = Simulation(RATE)
    old, new = arriving(simulation, 2, 3), arriving(simulation, 2, 3)
    *names, left_over = simulation.run(
        [arriving(simulation, 0, 3), arriving(simulation, 1, 3), new, old], [0.0, 1.0, 0.5, 0.0]
    )
    assert len(set(names)) == 1
    assert "nothing was heard from rank 0 in 60 s" in str(left_over)


@pytest.mark.parametrize("victim", [0, 2])
def test_a_rank_killed_at_any_moment_and_started_anew(victim):
    """All agree; but where the name was committed over the dead one's word, it is the new one that finds nobody."""
    size, agreed = 4, []
    for moment in range(1, 30):
        simulation = Simulation(RATE)
        functions = [*everyone(simulation, size, 5.0), arriving(simulation, victim, size, 5.0)]
        simulation.at(moment * 5e-5, lambda simulation=simulation: simulation.ranks[victim].kill())
        outcomes = simulation.run(functions, [0.0] * size + [0.5])
        others = {outcome for rank, outcome in enumerate(outcomes[:size]) if rank != victim}
        assert len(others) == 1
        assert isinstance(others.pop(), str)
        if isinstance(outcomes[victim], Killed):
            agreed.append(outcomes[-1] == outcomes[3])
            assert agreed[-1] or isinstance(outcomes[-1], ProcessError)
    assert agreed[:8] == [True] * 8


def test_a_store_that_dies_is_told_at_once():
    simulation = Simulation(RATE)
    simulation.at(1.0, simulation.die)
    outcomes = simulation.run(everyone(simulation, 5)[:4])
    for error in outcomes:
        assert isinstance(error, ProcessError)
        assert "the store of the job, which rank 0 or the launcher keeps, is gone" in str(error)
    assert simulation.ended_at < 1.01


def keeps_the_store(rank, port):
    """Rank 0 keeps the store and is killed; the other waits for its name."""
    if rank == 0:
        store = dist.TCPStore("127.0.0.1", port, is_master=True, wait_for_workers=False)
        store.wait(["hello/1"], timedelta(seconds=60))
        signal.raise_signal(signal.SIGKILL)
    store = dist.TCPStore("127.0.0.1", port, is_master=False, timeout=timedelta(seconds=60))
    with pytest.raises(ProcessError) as told:
        agree_on_name(store, rank, 2, 300.0)
    return str(told.value)


def test_a_real_store_that_dies_is_told_at_once():
    died, message = endings(2, keeps_the_store, free_port())
    assert died == -signal.SIGKILL
    assert "the store of the job, which rank 0 or the launcher keeps, is gone" in message


def test_a_real_store_tells_all_who_is_missing():
    store = dist.TCPStore("127.0.0.1", free_port(), is_master=True, wait_for_workers=False)
    messages = {}

    def arrive(rank):
        client = dist.TCPStore("127.0.0.1", store.port, is_master=False)
        with pytest.raises(ProcessError) as told:
            agree_on_name(client, rank, 4, 0.5)
        messages[rank] = str(told.value)

    threads = [threading.Thread(target=arrive, args=(rank,)) for rank in (1, 3)]
    for thread in threads:
        thread.start()
    store.wait(["hello/1", "hello/3"], timedelta(seconds=60))
    arrive(0)  # whose time begins now
    for thread in threads:
        thread.join()
    assert messages == dict.fromkeys((0, 1, 3), "start of 4 processes: rank 2 did not arrive in 0.5 s")
