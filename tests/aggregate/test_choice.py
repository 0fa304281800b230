"""The choice of an all-reduce: the fastest for each size, kept for the machine it was measured on, not for others."""

import pytest
import torch
import torch.distributed as dist
from support.devices import FakeQueue
from support.worlds import in_world
from torch.testing._internal.distributed.fake_pg import FakeStore

from batchscale.aggregate.choice import _kept, as_record, choose, fastest, measure
from batchscale.comm import Choice, Reducer, World
from batchscale.comm.engines import Aside
from batchscale.errors import UsageError

MACHINE = {"processor": "p", "torch": "2"}


def test_the_fastest_of_every_size_up_to_halfway_to_the_next():
    times = {1000: {"a": 1.0, "b": 2.0}, 4000: {"a": 3.0, "b": 2.0}, 16_000: {"a": 9.0, "b": 8.0}}
    assert fastest(times) == ((2000, "a"), (16_000, "b"))
    choice = Choice(fastest(times))
    assert [choice.algorithm(size) for size in (1, 2000, 2001, 10**9)] == ["a", "a", "b", "b"]


def test_a_kept_choice_holds_only_where_it_was_measured():
    record = as_record(Choice(((8, "ring"),), "measured"), MACHINE)
    assert _kept(MACHINE, record, None, ["ring"]) == (Choice(((8, "ring"),), "measured"), "")
    choice, stale = _kept({**MACHINE, "torch": "3"}, record, None, ["ring"])
    assert choice is None
    assert stale == "; the stored choice is of another machine or version (torch '2', here '3')"
    no_reason = {name: record[name] for name in ("limits", "machine")}
    endless = {**record, "limits": [[float("inf"), "ring"]]}
    odd = [
        {**record, "limits": [[-5, "ring"]]},
        {**record, "limits": [[9, "ring"], [8, "ring"]]},
        {**record, "why": 5},
        {**record, "why": "two\nlines"},
    ]
    for broken in (*odd, {}, no_reason, endless, {"limits": [["x"]], "machine": {}}, {"limits": 3, "machine": MACHINE}):
        assert _kept(MACHINE, broken, None, ["ring"]) == (None, "; the stored choice cannot be read")
    begun = as_record(Choice(((8, "torus"),), "measured"), MACHINE)
    kept = Choice(((8, "torus"),), "measured (as the run began)")
    assert _kept(MACHINE, record, begun, ["torus"])[0] == kept
    assert _kept(MACHINE, record, as_record(kept, MACHINE), ["torus"])[0] == kept  # and so on, resume after resume
    choice, stale = _kept(MACHINE, record, None, ["builtin"])
    assert choice is None
    assert stale == "; the stored choice names ring, which these processes cannot run"


def test_one_process_has_nothing_to_choose():
    assert choose(Reducer(World()), "auto", [torch.zeros(3)], MACHINE).why == "one process"


def decisions(world):
    reducer = Reducer(world)
    tensors = [reducer.zeros(n, torch.float32) for n in (10, 5000, 70_000)]
    measured = choose(reducer, "auto", tensors, MACHINE)
    times = measure(reducer, tensors, ["builtin", "shared_memory"])
    zeros = all(bool((t == 0).all()) for t in tensors)
    kept = as_record(Choice(((8, "builtin"),), "measured before"), MACHINE) if world.rank == 0 else None
    stored = choose(reducer, "auto", tensors, MACHINE, kept)
    stale = choose(reducer, "auto", tensors, {**MACHINE, "torch": "3"}, kept)
    named = choose(reducer, "ring", tensors, MACHINE)
    with pytest.raises(UsageError, match="did you mean ring"):
        choose(reducer, "rings", tensors, MACHINE)
    with pytest.raises(UsageError, match="must equal the 2 ranks"):
        Reducer(world, torus=(2, 2)).use(Choice(((0, "torus"),)))
    return measured, sorted(times), zeros, stored, stale, named


def test_all_processes_decide_alike():
    first, second = in_world(2, decisions)
    assert first == second
    measured, sizes, zeros, stored, stale, named = first
    assert measured.why == "measured at the start of the run"
    assert sizes == [40, 20_000, 280_000]
    assert zeros
    assert stored == Choice(((8, "builtin"),), "measured before")
    assert stale.why.endswith("is of another machine or version (torch '2', here '3')")
    assert named == Choice(((0, "ring"),), "as asked for")


@pytest.fixture
def fake_world(monkeypatch):
    """A world of a thousand ranks on GPUs, whose groups do nothing; and how many of them were made."""
    groups = []
    make = dist.new_group
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=1000)
    monkeypatch.setattr(dist, "new_group", lambda *ranks, **options: groups.append(ranks) or make(*ranks, **options))
    world = World(0, 1000, torch.device("cuda", 0))
    world.hosts = [list(range(first, first + 8)) for first in range(0, 1000, 8)]
    world.exchanges.queue = FakeQueue()
    yield world, groups
    dist.destroy_process_group()


def test_on_gpus_auto_is_the_backends_own_and_makes_no_group(fake_world):
    """On 91b3349 it made 259 groups of a thousand ranks, to measure what has no overlap."""
    world, groups = fake_world
    reducer = Reducer(world, torus=(40, 25))
    kept = as_record(Choice(((8, "torus"),), "measured before"), MACHINE)
    for earlier in ((), (kept,), (None, kept)):  # stored, or of the run: an older version measured
        assert choose(reducer, "auto", [], MACHINE, *earlier) == Choice(((0, "builtin"),), "NCCL chooses by itself")
    assert reducer.available() == ["builtin", "torus", "hierarchical"]
    assert "is not made for GPUs" in reducer.missing()["ring"]
    assert groups == []


@pytest.mark.parametrize(("name", "made"), [("torus", 65), ("hierarchical", 126)])
def test_on_gpus_groups_are_made_for_what_is_named(fake_world, name, made):
    world, groups = fake_world
    reducer = Reducer(world, torus=(40, 25))
    assert choose(reducer, name, [], MACHINE) == Choice(((0, name),), "as asked for")
    assert len(groups) == made
    choose(reducer, name, [], MACHINE)
    assert len(groups) == made


def test_a_named_way_runs_beside_the_training_and_the_stream_waits_for_it():
    world = World(0, 2, torch.device("cuda", 0))
    queue = world.exchanges.queue = FakeQueue(lambda: False)
    ran = []
    engine = Aside(world, lambda tensor, what: ran.append((queue.is_aside, what)))
    reduction = engine.start(torch.ones(3), "sum")
    assert ran == [(True, "sum")]
    assert not queue.is_aside
    reduction.wait()
    assert len(queue.followed) == 1
    assert queue.host_looks == 0
