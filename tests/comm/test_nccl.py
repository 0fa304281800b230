"""What NCCL leaves undone, on doubles: a wait with an end, the silent rank named, a second line that ends us last."""

import os
import signal
import time
from datetime import timedelta
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from support.devices import FakeQueue, NoWait, like_nccl
from support.worlds import CPU, endings, in_processes, survivors

from batchscale.comm import World
from batchscale.comm.collectives import subgroups
from batchscale.comm.world import device, diagnosis, nccl
from batchscale.comm.world import world as worlds
from batchscale.comm.world.device import Device, wait_on_host
from batchscale.comm.world.patience import Patience
from batchscale.errors import ProcessError, UsageError

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
    world = like_nccl(World.connect(CPU, 4.0 if how == "stops" else 60.0), "/tmp/recorded")
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
    world = World(0, 2)
    world.queue = FakeQueue(lambda: polls.append(1) or len(polls) > 3)
    monkeypatch.setattr(worlds.dist, "all_reduce", lambda *_, **__: NoWait())
    monkeypatch.setattr(World, "_meet", lambda *_: None)
    pending = world.start_all_reduce(torch.ones(3))
    assert not polls
    pending.wait()
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
    nccl.prepare()
    assert os.environ["TORCH_FR_BUFFER_SIZE"] == "2000"
    assert os.environ["TORCH_FR_DUMP_ON_TIMEOUT"] == "1"
    assert "TORCH_NCCL_TRACE_BUFFER_SIZE" not in os.environ  # torch warns of older names
    assert os.environ["TORCH_NCCL_ASYNC_ERROR_HANDLING"] == "0"
    settings.delenv("TORCH_FR_BUFFER_SIZE")
    settings.setenv("TORCH_NCCL_TRACE_BUFFER_SIZE", "0")
    settings.setenv("TORCH_NCCL_ASYNC_ERROR_HANDLING", "3")
    nccl.prepare()
    assert "TORCH_FR_BUFFER_SIZE" not in os.environ
    assert os.environ["TORCH_NCCL_TRACE_BUFFER_SIZE"] == "0"
    assert os.environ["TORCH_NCCL_ASYNC_ERROR_HANDLING"] == "3"


def test_the_last_collectives_lie_where_a_user_wants_them(settings, tmp_path):
    settings.setattr(torch._C._distributed_c10d, "_dump_nccl_trace", lambda: b"trace")
    settings.setenv("TORCH_FR_DUMP_TEMP_FILE", str(tmp_path / "trace_"))
    assert nccl.recorded(3) == f"; NCCL's last collectives: {tmp_path}/trace_3"
    assert (tmp_path / "trace_3").read_bytes() == b"trace"
    settings.setenv("TORCH_FR_DUMP_TEMP_FILE", str(tmp_path / "no" / "folder"))
    assert nccl.recorded(3) == ""


def test_the_group_is_made_at_once_and_its_own_watchdog_comes_last(settings):
    made = []
    settings.setattr(nccl.dist, "new_group", lambda **options: made.append(options))
    nccl.make_group(CUDA, 600)
    assert made == [{"backend": "nccl", "timeout": timedelta(seconds=660), "device_id": CUDA}]


def test_shared_memory_that_is_full_is_told_in_one_line(settings):
    def full(**_):
        raise RuntimeError("NCCL error\nshared memory segment /dev/shm/nccl-1 (size 9): No space left on device (28)")

    settings.setattr(nccl.dist, "new_group", full)
    with pytest.raises(UsageError, match=r"^/dev/shm is too small for NCCL: start the container with --shm-size=1g"):
        nccl.make_group(CUDA, 600)


@pytest.mark.parametrize("well", [True, False])
def test_after_an_error_the_groups_are_abandoned_and_not_waited_for(monkeypatch, well):
    left = []
    monkeypatch.setattr(worlds.dist, "is_initialized", lambda: True)
    monkeypatch.setattr(worlds.dist, "barrier", lambda: left.append("barrier"))
    monkeypatch.setattr(worlds.dist, "destroy_process_group", lambda: left.append("destroyed"))
    monkeypatch.setattr(dist.distributed_c10d, "_abort_process_group", lambda: left.append("aborted"))
    World(0, 2, CUDA).close(wait=well)
    assert left == (["barrier", "destroyed"] if well else ["aborted"])
    monkeypatch.delattr(dist.distributed_c10d, "_abort_process_group")
    left.clear()
    World(0, 2, CUDA).close(wait=False)
    assert left == ["destroyed"]


def test_subgroups_are_of_the_backend_that_reduces(monkeypatch):
    """The default group is Gloo's, on GPUs, too."""
    made = []
    monkeypatch.setattr(subgroups.dist, "get_backend", lambda group: group)
    monkeypatch.setattr(subgroups.dist, "new_group", lambda *ranks, **options: made.append((ranks, options)) or ranks)
    world = World(2, 4, CUDA)
    for world.group, seconds in (("nccl", 120), ("gloo", 60)):
        assert subgroups.own_group(world, [[0, 1], [2, 3]]) == ([2, 3],)
        options = {"timeout": timedelta(seconds=seconds), "backend": world.group}
        assert made == [(([0, 1],), options), (([2, 3],), options)]
        made.clear()


def on_devices(rank, words):
    """A start in which this rank's device is said to be so."""
    worlds.describe = lambda _: Device(*words[rank])
    with pytest.raises(UsageError) as raised:
        World.connect(CPU, 60.0)
    return str(raised.value)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([("cuda", "H200", "a"), ("cuda", "H200", "a")], "ranks 0, 1 of one host share a GPU"),
        ([("cpu",), ("cuda", "H200", "a")], "rank 0 of 2 trains on the CPU"),
    ],
)
def test_wrong_devices_end_the_start_on_all_ranks_alike(words, message):
    first, second = in_processes(2, on_devices, words)
    assert first == second
    assert message in first
