"""What NCCL leaves undone, on doubles: a wait with an end, the silent rank named, a second line that ends us last."""

import os
import pickle
import signal
import threading
import time
from datetime import timedelta
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from support.devices import FakeQueue, NoWait, like_nccl
from support.worlds import CPU, endings, in_processes, survivors

from batchscale.aggregate.choice import choose
from batchscale.comm import Choice, Reducer, World
from batchscale.comm.collectives import subgroups
from batchscale.comm.world import device, diagnosis, nccl
from batchscale.comm.world import world as worlds
from batchscale.comm.world.device import Device, wait_on_host
from batchscale.comm.world.patience import Patience
from batchscale.errors import ProcessError, UsageError
from batchscale.system import notes

NEVER = SimpleNamespace(query=lambda: False)
CUDA = torch.device("cuda", 0)


def test_an_event_that_never_comes_ends_the_wait_at_its_bound():
    start = time.monotonic()
    with pytest.raises(RuntimeError, match=r"timed out after 0\.3 s: the device still waits"):
        wait_on_host(NEVER, Patience(0.3))
    assert time.monotonic() - start >= 0.3


def test_the_host_spins_then_sleeps(monkeypatch):
    slept = []
    monkeypatch.setattr(device.time, "sleep", slept.append)
    answers = iter([False] * 5 + [True])
    times = iter([0.0, 1e-5, 1e-4, 19e-5, 3e-4, 4e-4])
    monkeypatch.setattr(device.time, "monotonic", lambda: next(times))
    bounds = SimpleNamespace(over=lambda since: False, someone_failed=lambda: False)
    wait_on_host(SimpleNamespace(query=lambda: next(answers)), bounds)
    assert slept == [1e-4, 1e-4]


def test_a_rank_that_failed_elsewhere_ends_the_wait_at_once(monkeypatch):
    store = dist.HashStore()
    failing, waiting = Patience(600), Patience(600)
    for bounds in (failing, waiting):
        bounds.by(store)
    failing.tell_failed()
    with pytest.raises(RuntimeError, match="another rank failed"):
        wait_on_host(NEVER, waiting)


def faulty(rank, how):
    """A sum like NCCL's, in which rank 1 fails."""
    diagnosis.SETTLE_SECONDS = 4.0
    world = like_nccl(World.connect(CPU, 60.0), "/tmp/recorded")
    world.timeout_seconds = 4.0 if how == "stops" else 60.0
    for _ in range(2):  # the second time ranks do not meet by Gloo before it
        world.all_reduce(torch.ones(9), "all-reduce of gradients")
    world.gather("all are here")
    if rank == 1 and how == "stops":
        os.kill(os.getpid(), signal.SIGSTOP)
    if rank == 1:  # in something that is no exchange
        nccl.abandon_groups = lambda: None
        world.close(wait=False)
        os._exit(7)
    start = time.monotonic()
    with pytest.raises(ProcessError) as raised:
        world.all_reduce(torch.ones(9), "all-reduce of gradients")
    return str(raised.value), time.monotonic() - start


@pytest.mark.slow
def test_a_silent_rank_is_named_though_the_wait_of_the_work_returns_at_once():
    """On 91b3349 the wait returned, and the host blocked in the next copy until NCCL's watchdog aborted it."""
    for rank, (error, _) in survivors(2, 1, faulty, "stops").items():
        assert error.startswith(f"all-reduce of gradients (rank {rank} of 2): rank 1 did not answer within 4 s (timed ")
        assert error.endswith(f"; NCCL's last collectives: /tmp/recorded/{rank}")


def test_a_rank_that_ends_by_an_error_of_its_own_is_named_long_before_the_bound():
    (error, seconds), code = endings(2, faulty, "ends")
    assert code == 7
    assert "rank 1 died" in error
    assert seconds < 40


def test_a_sum_waits_for_its_event_and_not_only_for_its_work(monkeypatch):
    polls = []
    world = World(0, 2, CUDA)
    world.exchanges.queue = FakeQueue(lambda: polls.append(1) or len(polls) > 3)
    monkeypatch.setattr(worlds.dist, "all_reduce", lambda *_, **__: NoWait())
    monkeypatch.setattr(world.exchanges, "meet", lambda *_: None)
    world.start_all_reduce(torch.ones(3)).wait()  # the stream
    assert not polls
    world.all_reduce(torch.ones(3))
    assert len(polls) == 4
    polls.clear()
    Reducer(world, Choice(((0, "builtin"),))).all_reduce(torch.ones(3))
    assert len(polls) == 4


@pytest.fixture
def settings(monkeypatch):
    """None of the variables that NCCL's groups read."""
    for names in (nccl._SIZES, nccl._DUMPS, nccl._FILES, nccl._ERRORS):
        for name in names:
            monkeypatch.setenv(name, "")  # so that what is set here goes again
            monkeypatch.delenv(name)
    return monkeypatch


def test_the_recorder_is_on_and_errors_are_left_to_us_unless_a_user_says_otherwise(settings):
    # By the names of today: torch warns of older ones.
    ours = {"TORCH_FR_BUFFER_SIZE": "2000", "TORCH_FR_DUMP_ON_TIMEOUT": "1", "TORCH_NCCL_ASYNC_ERROR_HANDLING": "0"}
    assert nccl.settings() == ours
    del ours["TORCH_NCCL_ASYNC_ERROR_HANDLING"]  # in DDP nobody waits with a bound: that must go on to end the process
    assert nccl.settings(by_watchdog=True) == ours
    settings.setenv("TORCH_NCCL_TRACE_BUFFER_SIZE", "0")
    settings.setenv("TORCH_NCCL_ASYNC_ERROR_HANDLING", "3")
    assert nccl.settings() == {"TORCH_FR_DUMP_ON_TIMEOUT": "1"}


def traces(settings, **entries):
    """torch's recorders, with entries by the name of their call; and what they were asked for."""
    asked = []

    def dump(name):
        def call(backend=""):
            asked.append((name, backend))
            return pickle.dumps({"entries": entries[name]})

        return call

    for name in ("_dump_fr_trace", "_dump_nccl_trace"):
        if name in entries:
            settings.setattr(nccl.torch._C._distributed_c10d, name, dump(name), raising=False)
        else:
            settings.delattr(nccl.torch._C._distributed_c10d, name, raising=False)
    return asked


GROUP = SimpleNamespace(_get_backend=lambda device: SimpleNamespace(name=lambda: f"of {device}"))


@pytest.mark.parametrize("call", ["_dump_fr_trace", "_dump_nccl_trace"])
def test_the_last_collectives_lie_where_a_user_wants_them(settings, tmp_path, call):
    """Those of the group's backend: torch's present NCCL leaves the older call without entries."""
    asked = traces(settings, **{"_dump_nccl_trace": [], call: ["a sum"]})
    settings.setenv("TORCH_FR_DUMP_TEMP_FILE", str(tmp_path / "trace_"))
    assert nccl.recorded(3, GROUP, CUDA) == f"; NCCL's last collectives: {tmp_path}/trace_3"
    assert pickle.loads((tmp_path / "trace_3").read_bytes()) == {"entries": ["a sum"]}
    assert asked[0] == (call, "of cuda:0" if call == "_dump_fr_trace" else "")
    settings.setenv("TORCH_FR_DUMP_TEMP_FILE", str(tmp_path / "no" / "folder"))
    assert nccl.recorded(3, GROUP, CUDA) == ""


@pytest.mark.parametrize("entries", [{}, {"_dump_nccl_trace": []}, {"_dump_fr_trace": [], "_dump_nccl_trace": []}])
def test_no_file_is_named_where_nothing_was_recorded(settings, tmp_path, entries):
    traces(settings, **entries)  # {}: a torch without NCCL
    settings.setenv("TORCH_FR_DUMP_TEMP_FILE", str(tmp_path / "trace_"))
    assert nccl.recorded(3, GROUP, CUDA) == ""
    assert not list(tmp_path.iterdir())


def test_groups_of_nccl_are_made_at_once_with_its_own_watchdog_last_and_nothing_stays_set(settings):
    made = []
    settings.setattr(nccl.dist, "new_group", lambda *ranks, **options: made.append((ranks, options, nccl.settings())))
    nccl.make_group(CUDA, 600)
    minute = {"timeout": timedelta(seconds=660), "backend": "nccl", "device_id": CUDA}
    assert made == [((None,), minute, {})]  # all was set then
    assert len(nccl.settings()) == 3  # and is not now


def test_a_group_of_a_backend_for_each_kind_of_device(monkeypatch):
    """Its name may be any, so what it is called says nothing of who reduces."""
    monkeypatch.setattr(nccl.dist, "get_backend", lambda group: "undefined")
    monkeypatch.setattr(nccl.dist, "get_backend_config", lambda group: "cpu:gloo,cuda:nccl")
    assert [nccl.backend_for(device) for device in (CPU, CUDA)] == ["gloo", "nccl"]


def test_shared_memory_that_is_full_is_told_in_one_line(settings):
    def full(*_, **__):
        raise RuntimeError("NCCL error\nshared memory segment /dev/shm/nccl-1 (size 9): No space left on device (28)")

    settings.setattr(nccl.dist, "new_group", full)
    with pytest.raises(UsageError, match=r"^/dev/shm is too small for NCCL: start the container with --shm-size=1g"):
        nccl.make_group(CUDA, 600)


@pytest.fixture
def left(monkeypatch):
    """What a world of GPUs does as it leaves; the world."""
    steps = []
    monkeypatch.setattr(worlds.dist, "is_initialized", lambda: True)
    monkeypatch.setattr(worlds.dist, "barrier", lambda: steps.append("barrier"))
    monkeypatch.setattr(worlds.dist, "destroy_process_group", lambda: steps.append("destroyed"))
    monkeypatch.setattr(dist.distributed_c10d, "_abort_process_group", lambda: steps.append("aborted"))
    world = World(0, 2, CUDA)
    world._owns_group = True
    return world, steps


@pytest.mark.parametrize("well", [True, False])
def test_after_an_error_the_groups_are_abandoned_and_not_waited_for(monkeypatch, left, well):
    world, steps = left
    world.close(wait=well)
    assert steps == (["barrier", "destroyed"] if well else ["aborted"])
    monkeypatch.delattr(dist.distributed_c10d, "_abort_process_group")
    steps.clear()
    world.close(wait=False)
    assert steps == ["destroyed"]


def test_a_rank_lost_at_the_very_end_takes_nothing_from_a_run_that_ended_well(monkeypatch, left, capsys):
    """The error came in place of the run's result, and everything stayed open."""
    world, steps = left

    def lost():
        raise RuntimeError("Connection closed by peer")

    monkeypatch.setattr(worlds.dist, "barrier", lost)
    monkeypatch.setattr(notes, "_noted", set())
    world.close(wait=True)
    assert steps == ["aborted"]
    line = "waiting for the others to end (rank 0 of 2): Connection closed by peer; this process had ended well"
    assert capsys.readouterr().err == f"note: {line}\n"


def test_an_end_that_is_interrupted_closes_all_the_same(monkeypatch, left):
    world, steps = left

    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(worlds.dist, "barrier", interrupted)
    with pytest.raises(KeyboardInterrupt):
        world.close(wait=True)
    assert steps == ["aborted"]


def test_subgroups_are_of_the_backend_that_reduces(monkeypatch):
    """The default group is Gloo's, on GPUs, too."""
    made = []
    monkeypatch.setattr(nccl.dist, "get_backend_config", lambda group: group)
    monkeypatch.setattr(nccl.dist, "new_group", lambda *ranks, **options: made.append((ranks, options)) or ranks)
    world = World(2, 4, CUDA)
    rows = (("cpu:gloo,cuda:nccl", 120, {"backend": "nccl", "device_id": CUDA}), ("cuda:gloo", 60, {"backend": "gloo"}))
    for world.group, seconds, options in rows:
        assert subgroups.own_group(world, [[0, 1], [2, 3]]) == ([2, 3],)
        options["timeout"] = timedelta(seconds=seconds)
        assert made == [(([0, 1],), options), (([2, 3],), options)]
        made.clear()


def on_devices(rank, words):
    """A start in which this rank's device is said to be so."""
    describe, worlds.describe = worlds.describe, lambda _: Device(*words[rank])
    with pytest.raises(UsageError) as raised:
        World.connect(CPU, 60.0, 90.0)
    threads = [thread.name for thread in threading.enumerate()]
    worlds.describe = describe
    world = World.connect(CPU, 60.0)
    ranks = world.gather(rank)
    world.close()
    return str(raised.value), threads, ranks


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([("cuda", "H200", "a"), ("cuda", "H200", "a")], "ranks 0, 1 share a GPU"),
        ([("cpu",), ("cuda", "H200", "a")], "rank 0 of 2 trains on the CPU"),
    ],
)
def test_wrong_devices_end_the_start_on_all_ranks_alike_and_leave_nothing(words, message):
    """The group and the watch stayed: a second start failed as one that begins the default group twice."""
    (first, threads, ranks), (second, *_) = in_processes(2, on_devices, words)
    assert first == second
    assert message in first
    assert "batchscale-watch" not in threads
    assert ranks == [0, 1]


def of_one_gpu(rank, uuids):
    """A sum of ranks whose GPUs are said to be these; how many groups of NCCL were made for it."""
    os.environ["BATCHSCALE_SHARE_GPUS"] = "1"
    worlds.describe = lambda _: Device("cuda", "H200", uuids[rank])
    made = []
    nccl.make_group = lambda *_: made.append(rank)
    world = World.connect(CUDA, 60.0)
    world.exchanges.queue = FakeQueue()
    total = torch.full((3,), float(rank + 1), dtype=torch.float64)
    world.all_reduce(total)
    why = choose(Reducer(world), "auto", [], {}).why
    world.close()
    return len(made), total.tolist(), why


@pytest.mark.parametrize(
    ("uuids", "groups", "why"),
    [(["a", "a"], 0, "by Gloo: processes share a GPU"), (["a", "b"], 1, "NCCL chooses by itself")],
)
def test_ranks_that_may_share_a_gpu_sum_by_gloo(uuids, groups, why):
    """NCCL refuses two ranks of one device."""
    assert in_processes(2, of_one_gpu, uuids) == [(groups, [3.0] * 3, why)] * 2
