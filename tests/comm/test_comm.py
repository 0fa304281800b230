"""Attempts on one store never mix; the silent rank is named."""

import os
import threading
import time
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
from support.simulated_store import Simulation
from support.worlds import free_port, in_processes, in_world
from torch.distributed import TCPStore

from batchscale.comm.world.rendezvous import agree_on_name
from batchscale.comm.world.world import World
from batchscale.errors import ProcessError


@pytest.fixture
def store():
    return TCPStore("127.0.0.1", free_port(), is_master=True, timeout=timedelta(seconds=10), wait_for_workers=False)


def clone(store):
    return TCPStore("127.0.0.1", store.port, is_master=False, timeout=timedelta(seconds=10), wait_for_workers=False)


def attempt(store, size, delays=None):
    """Every rank's name in one attempt, the ranks arriving at their own time."""
    names = [None] * size

    def arrive(rank):
        time.sleep((delays or [0.0] * size)[rank])
        names[rank] = agree_on_name(clone(store), rank, size, 10.0)

    threads = [threading.Thread(target=arrive, args=(r,)) for r in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return names


def test_every_attempt_gets_a_fresh_name_on_a_store_used_before(store):
    seen = set()
    for size, delays in [(3, None), (3, [0, 0.2, 0.1]), (2, [0.2, 0]), (3, [0.1, 0, 0.3]), (1, None), (4, None)]:
        names = attempt(store, size, delays)
        assert len(set(names)) == 1
        assert names[0] is not None
        assert names[0] not in seen
        seen.add(names[0])


def test_whoever_does_not_arrive_is_named(store):
    with pytest.raises(ProcessError, match=r"rank 1 did not arrive in 0.3 s"):
        agree_on_name(store, 0, 2, 0.3)


def runs_one_after_the_other(rank, count):
    """Rank 0 is slow to leave every world; the others are in the next one by then."""
    leave = dist.destroy_process_group
    dist.destroy_process_group = lambda: (time.sleep(0.3 if rank == 0 else 0), leave())
    answers = []
    for _ in range(count):
        world = World.connect(torch.device("cpu"), 60.0)
        answers.append(world.gather(rank))
        if rank == 0:
            answers.append(world.job_knows("begun"))  # by an earlier attempt; a run before, in this process, is none
            world.tell_job("begun")
        world.close()
    return answers


def test_worlds_follow_one_another_in_the_same_processes():
    everyone = [0, 1, 2]
    first, *others = in_processes(3, runs_one_after_the_other, 3)
    assert first == [everyone, False] * 3
    assert others == [[everyone] * 3] * 2


def attempts_on_one_store(rank, kind, folder):
    """Two attempts, each with a default group of the same name, on one store; what each knows of earlier ones."""
    if kind == "file":
        store = dist.FileStore(f"{folder}/store", 2)
    else:
        store = TCPStore("127.0.0.1", int(os.environ["MASTER_PORT"]), 2, rank == 0, timedelta(seconds=60))
    dist.distributed_c10d._get_default_store = lambda: store
    answers = []
    for attempt in range(2):
        mine = dist.PrefixStore(f"attempt {attempt}", store)  # torch's own keys, as its agent keeps them apart
        dist.init_process_group("gloo", store=mine, rank=rank, world_size=2)
        world = World.of_process_group(torch.device("cpu"), 60.0)
        shared = world.exchanges.store
        answers.append((world.gather(rank), shared.check(["failed"]), shared.check(["verdict"])))
        world.gather("all have looked")
        shared.set("verdict", "of this attempt")
        world.patience.tell_failed()
        world.gather("all are here")
        dist.destroy_process_group()
    return answers


@pytest.mark.parametrize("kind", ["tcp", "file"])
def test_a_later_attempt_on_a_store_hears_nothing_of_an_earlier_one(tmp_path, kind):
    """Its keys had the name of the group, which is the same again: it read the verdict of the attempt before."""
    assert in_processes(2, attempts_on_one_store, kind, tmp_path) == [[([0, 1], False, False)] * 2] * 2


def collectives(world):
    total = torch.tensor([1.0, float(world.rank)])
    world.all_reduce(total)
    largest = torch.tensor([float(world.rank)])
    world.all_reduce_max(largest)
    try:
        world.from_rank_zero(lambda: 1 / 0)
        raised = False
    except ZeroDivisionError:
        raised = True
    return total.tolist(), largest.item(), world.gather(world.rank * 10), world.from_rank_zero(lambda: "zero"), raised


def test_what_processes_say_to_each_other():
    for answers in in_world(3, collectives):
        assert answers == ([3.0, 3.0], 2.0, [0, 10, 20], "zero", True)


def test_a_world_of_one_needs_nobody():
    world = World()
    tensor = torch.ones(2)
    world.all_reduce(tensor)
    assert tensor.tolist() == [1.0, 1.0]
    assert world.gather("x") == ["x"]
    assert world.from_rank_zero(lambda: 3) == 3


@pytest.mark.parametrize(
    ("reason", "message"),
    [("Timed out waiting 3000ms", "rank 1 did not answer within 3 s"), ("Connection reset", "rank 1 died")],
)
def test_a_failed_exchange_names_the_silent_rank(store, monkeypatch, reason, message):
    monkeypatch.setattr("batchscale.comm.world.diagnosis.SETTLE_SECONDS", 0.05)
    world = World(0, 2, timeout_seconds=3.0, store=store)

    def broken(*_, **__):
        raise RuntimeError(reason)

    monkeypatch.setattr("torch.distributed.all_gather_object", broken)

    with pytest.raises(ProcessError, match=f"all-reduce .rank 0 of 2.: {message}"):
        world.gather(0, "all-reduce")


def test_a_fact_may_name_a_folder_that_is_no_utf8(store, monkeypatch):
    """On 91b3349 every run of several processes with such an --out failed."""
    agent = {"RANK": 0, "WORLD_SIZE": 1, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": store.port}
    for name, value in {**agent, "TORCHELASTIC_USE_AGENT_STORE": True}.items():
        monkeypatch.setenv(name, str(value))
    earlier, later = (World.connect(torch.device("cpu"), 10.0) for _ in range(2))
    assert not later.job_knows("opened /r\udcfcn")
    earlier.tell_job("opened /r\udcfcn")
    assert not earlier.job_knows("opened /r\udcfcn")  # by itself; its answer comes when the store has what was told
    monkeypatch.setattr("batchscale.comm.world.world.this_process", lambda: "another")
    assert later.job_knows("opened /r\udcfcn")
    assert not later.job_knows("opened /run")


def test_earlier_attempts_are_asked_after_by_one_request(monkeypatch):
    def attempts(store):
        world, answers = World(0, 2), []
        world._job = store
        for process in ("first", "second"):
            monkeypatch.setattr("batchscale.comm.world.world.this_process", lambda process=process: process)
            before = store.requests
            answers.append((world.job_knows("opened"), store.requests - before))
            world.tell_job("opened")
            assert not world.job_knows("opened")  # by itself
        return answers

    assert Simulation(20_000).run([attempts]) == [[(False, 1), (True, 1)]]
