"""All-reduce in shared memory: right sums for every type, length and place; a peer that fails is named in time."""

import errno
import os
import resource
import signal
import time
from pathlib import Path

import pytest
import torch
from support.refusing import refusing
from support.sandbox import needs_filters, refuse_calls
from support.worlds import in_world, survivors

from batchscale.comm import Reducer, World
from batchscale.comm.shared import mapping as mappings
from batchscale.comm.shared.all_reduce import SMALL_BYTES, SharedMemoryAllReduce
from batchscale.comm.shared.flags import IN_FLIGHT
from batchscale.comm.shared.mapping import Mapping, NoSharedMemory
from batchscale.comm.world import world as world_module
from batchscale.errors import ProcessError
from batchscale.system.memory_file import memory_file

CPU = torch.device("cpu")
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64)
LENGTHS = (0, 1, 2, 5, 1023, 40_001, 300_007)  # small, over SMALL_BYTES, over a slot and its chunks


def values(rank, length, dtype):
    """Small whole numbers: every type adds them exactly."""
    return ((torch.arange(length) * 7 + rank * 3) % 11).to(dtype)


def expected(size, length, dtype):
    return sum(values(rank, length, torch.int64) for rank in range(size)).to(dtype)


def every_case(world):
    shared = SharedMemoryAllReduce(world)
    wrong = []
    for dtype in DTYPES:
        buffer = shared.zeros(max(LENGTHS) + 3, dtype)
        for length in LENGTHS:
            for place in ("in place", "elsewhere"):
                tensor = buffer[3 : 3 + length] if place == "in place" else torch.empty(length, dtype=dtype)
                tensor.copy_(values(world.rank, length, dtype))
                shared.start(tensor).wait()
                if not torch.equal(tensor, expected(world.size, length, dtype)):
                    wrong.append((dtype, length, place))
    return wrong, many_at_once(world, shared), random_bits(world, shared)


def many_at_once(world, shared):
    """More reductions under way than a process may be ahead, small and large, waited for in any order."""
    buffer = shared.zeros(4 * IN_FLIGHT * 20_000, torch.float32)
    tensors = [buffer[i * 20_000 :][: 100 + i * 150] for i in range(3 * IN_FLIGHT)]
    tensors += [torch.empty(200_000) for _ in range(3)]
    for tensor in tensors:
        tensor.copy_(values(world.rank, len(tensor), torch.float32))
    if world.rank:
        time.sleep(0.1)
    pending = []
    for tensor in tensors:
        pending.append(shared.start(tensor))
        shared.progress()
    for operation in reversed(pending):
        operation.wait()
    return all(torch.equal(t, expected(world.size, len(t), torch.float32)) for t in tensors)


def random_bits(world, shared):
    generator = torch.Generator().manual_seed(world.rank)
    tensor = shared.zeros(100_003, torch.float32)
    tensor.copy_(torch.randn(100_003, generator=generator))
    shared.start(tensor).wait()
    return tensor.numpy().tobytes()


def sum_in_rank_order(size):
    rows = [torch.randn(100_003, generator=torch.Generator().manual_seed(rank)) for rank in range(size)]
    total = rows[0].clone()
    for row in rows[1:]:
        total += row
    return total.numpy().tobytes()


@pytest.mark.parametrize("size", [2, 3, 5])
def test_sums_are_right_everywhere(size):
    for wrong, many, bits in in_world(size, every_case):
        assert not wrong
        assert many
        assert bits == sum_in_rank_order(size)  # so all processes hold the same bits


def connected(timeout_seconds):
    """A world in which all have arrived, however long a busy machine took, and are then waited for so long."""
    world = World.connect(CPU, 60.0)
    world.timeout_seconds = timeout_seconds
    return world


def failing(rank, how, length):
    """What a process learns when rank 1 fails in its third all-reduce."""
    world = connected(5.0 if how == "stops" else 600.0)  # a death is seen at once, or this test runs into its own limit
    shared = SharedMemoryAllReduce(world)
    tensor = torch.ones(length)
    for _ in range(2):
        shared.start(tensor, "all-reduce of gradients").wait()
    if rank == 1 and how == "dies":
        os._exit(0)
    if rank == 1 and how == "stops":
        os.kill(os.getpid(), signal.SIGSTOP)
    if rank == 1 and how == "brings another length":
        tensor = torch.ones(length + 1)
    with pytest.raises(ProcessError) as raised:
        shared.start(tensor, "all-reduce of gradients").wait()
    return str(raised.value)


@pytest.mark.parametrize("length", [10, SMALL_BYTES])
@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("dies", r"rank 1 died"),
        ("stops", r"rank 1 is stopped and did not answer within 5 s"),
        ("brings another length", r"brought {more} x float32, this rank {length} x float32"),
    ],
)
def test_a_peer_that_fails_is_named_in_time(how, message, length):
    learnt = survivors(3, how in ("dies", "stops"), failing, how, length)
    for rank in (0, 2):
        assert learnt[rank].startswith(f"all-reduce of gradients by shared_memory (rank {rank} of 3): rank ")
        first = message.format(length=length, more=length + 1)
        assert first in learnt[rank] or f"rank 1 failed, as rank {2 - rank} found" in learnt[rank]
    assert any(message.format(length=length, more=length + 1) in learnt[rank] for rank in (0, 2))


def without_memory(world, reason):
    if reason == "none free" and world.rank == 0:
        mappings.free_bytes = lambda: 1000
    if reason == "other processor" and world.rank == 2:
        mappings.platform.machine = lambda: "riscv64"
    try:
        Mapping(world, 4096)
    except NoSharedMemory as error:
        learnt = str(error)
    reducer = Reducer(world)
    tensor = reducer.zeros(1000, torch.float32)
    tensor += world.rank
    reducer.all_reduce(tensor)
    used = reducer.choice.limits[-1][1]
    return learnt, used, reducer.notes, tensor.tolist() == [3.0] * 1000


@pytest.mark.parametrize(
    ("reason", "message"),
    [
        ("none free", "MiB are needed and 0 MiB are free"),
        ("other processor", "memory ordering of riscv64 is not x86-64's"),
    ],
)
def test_without_shared_memory_the_backend_takes_over_and_says_so(reason, message):
    for learnt, used, notes, right in in_world(3, without_memory, reason):
        assert message in learnt
        assert used == "builtin"
        assert message in notes[0]
        assert right


def no_address_space(world):
    """Rank 1 has no room in its address space for the mapping."""
    if world.rank == 1:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20), resource.RLIM_INFINITY))
    try:
        Mapping(world, 256 << 20)
    except NoSharedMemory as error:
        return str(error)
    return "mapped"


def test_a_mapping_that_fails_on_one_process_fails_on_all():
    assert set(in_world(2, no_address_space)) == {"512 MiB: Cannot allocate memory"}


def names_and_size(world):
    mapping = Mapping(world, 3 << 20)
    mapping.rows[world.local_rank].fill_(world.rank + 1)
    world.gather(None)
    return mapping.rows[:, -1].tolist(), file_at(mapping.rows.data_ptr())


def file_at(address):
    """What this process has mapped at an address, as the kernel names it."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        begin, end = (int(bound, 16) for bound in line.split()[0].split("-"))
        if begin <= address < end:
            return line.split(maxsplit=5)[5]
    return "nothing"


def test_memory_has_no_name_and_is_seen_by_all():
    assert in_world(2, names_and_size) == [([1, 2], "/memfd:batchscale (deleted)")] * 2


def on_two_hosts(rank, how):
    """Ranks 0, 1 and 2, 3 as two hosts; rank 3 fails in the third all-reduce."""
    world_module.this_host = lambda: str(rank // 2)
    world = World.connect(CPU, 600.0 if how == "dies" else 10.0)
    reducer = Reducer(world)
    tensor = reducer.zeros(100_003, torch.float32)
    for step in range(2):
        tensor.fill_(rank + step)
        reducer.all_reduce(tensor, "all-reduce of gradients")
        assert tensor.tolist() == [6.0 + 4 * step] * 100_003
    if rank == 3 and how == "stops":
        os.kill(os.getpid(), signal.SIGSTOP)
    if rank == 3:
        os._exit(0)
    with pytest.raises(ProcessError) as raised:
        reducer.all_reduce(tensor, "all-reduce of gradients")
    return world.hosts, reducer.choice.limits, str(raised.value)


@pytest.mark.parametrize("how", ["dies", "stops"])
def test_with_two_hosts_the_one_that_failed_is_named_and_no_other(how):
    learnt = survivors(4, 1, on_two_hosts, how)
    assert sorted(learnt) == [0, 1, 2]
    for hosts, limits, error in learnt.values():
        assert hosts == [[0, 1], [2, 3]]
        assert limits == ((0, "three_phase"),)
        assert "rank 3 " in error.partition(": ")[2], error
        assert not any(f"rank {other} d" in error for other in range(3)), error


def no_handle_on_life(world):
    if world.rank == 1:
        os.pidfd_open = refuse
    with pytest.raises(NoSharedMemory) as raised:
        SharedMemoryAllReduce(world)
    return str(raised.value)


def refuse(pid):
    raise OSError(38, "Function not implemented")


def test_where_peers_cannot_be_watched_there_is_no_shared_memory():
    assert set(in_world(2, no_handle_on_life)) == {"peers cannot be watched (pidfd_open: Function not implemented)"}


def tree(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(root)


def test_free_memory_is_what_the_tightest_group_leaves(tmp_path):
    machine = {"proc/meminfo": "MemTotal: 9000 kB\nMemAvailable: 8000 kB\n"}
    assert mappings.free_bytes(tree(tmp_path / "bare", machine)) == 8_192_000
    container = {
        **machine,
        "proc/self/cgroup": "0::/\n",
        "sys/fs/cgroup/memory.max": "5000000\n",
        "sys/fs/cgroup/memory.current": "4000000\n",
        "sys/fs/cgroup/memory.stat": "anon 100\ninactive_file 300\nactive_file 50\n",
    }
    assert mappings.free_bytes(tree(tmp_path / "container", container)) == 1_000_350
    nested = {
        **container,
        "proc/self/cgroup": "0::/job/step\n",
        "sys/fs/cgroup/job/step/memory.max": "max\n",
        "sys/fs/cgroup/job/step/memory.current": "10\n",
        "sys/fs/cgroup/job/memory.max": "2000\n",
        "sys/fs/cgroup/job/memory.current": "1500\n",
        "sys/fs/cgroup/job/memory.stat": "anon 1\n",
    }
    assert mappings.free_bytes(tree(tmp_path / "nested", nested)) == 500
    first_version = {
        **machine,
        "proc/self/cgroup": "5:cpu,cpuacct:/\n4:memory:/a\n",
        "sys/fs/cgroup/memory/a/memory.limit_in_bytes": "700\n",
        "sys/fs/cgroup/memory/a/memory.usage_in_bytes": "100\n",
        "sys/fs/cgroup/memory/a/memory.stat": "cache 5\n",
    }
    assert mappings.free_bytes(tree(tmp_path / "first", first_version)) == 600
    assert mappings.free_bytes(str(tmp_path / "nothing")) is None


def in_sandbox(world, names):
    """Rank 1 below a real filter: what all do then, and that they still sum."""
    if world.rank == 1 or "memfd_create" in names:
        refuse_calls(*names)
    reducer = Reducer(world)
    tensor = reducer.zeros(1000, torch.float32)
    tensor += world.rank
    reducer.all_reduce(tensor)
    return reducer.choice.limits[-1][1], reducer.notes[0], tensor.tolist() == [1.0] * 1000


@needs_filters
@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (("memfd_create",), "MiB: Operation not permitted"),
        (("pidfd_open",), "peers cannot be watched (pidfd_open: Operation not permitted)"),
    ],
)
def test_below_a_filter_of_system_calls_the_backend_takes_over_and_says_so(names, reason):
    for used, note, right in in_world(2, in_sandbox, names):
        assert used == "builtin"
        assert reason in note
        assert right


SEAL = 0x8


@pytest.mark.parametrize(
    ("refused", "flags"),
    [
        (None, [os.MFD_CLOEXEC | SEAL]),
        (errno.EINVAL, [os.MFD_CLOEXEC | SEAL, os.MFD_CLOEXEC]),  # a kernel that does not know the seal
    ],
)
def test_files_in_memory_are_sealed_against_running_where_the_kernel_can(monkeypatch, refused, flags):
    asked, real = [], os.memfd_create

    def create(name, flags):
        asked.append(flags)
        if refused and flags & SEAL:
            raise OSError(refused, os.strerror(refused))
        return real(name, flags & ~SEAL)  # this machine's kernel may be the older one

    monkeypatch.setattr(os, "memfd_create", create)
    os.close(memory_file("batchscale"))
    assert asked == flags


def test_a_sandbox_that_refuses_files_in_memory_is_asked_once(monkeypatch):
    monkeypatch.setattr(os, "memfd_create", refusing(errno.EPERM))
    with pytest.raises(PermissionError):
        memory_file("batchscale")
