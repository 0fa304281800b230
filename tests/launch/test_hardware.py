"""The device of a process: never the CPU in silence where there are GPUs, never a GPU that another process has."""

from types import SimpleNamespace

import pytest
import torch

from batchscale.comm.world import device as devices
from batchscale.comm.world.device import Device, check_devices, device_text, differing_models
from batchscale.errors import RecipeError, UsageError
from batchscale.launch import hardware
from batchscale.launch.hardware import choose_device, little_shared_memory
from batchscale.recipe import load_recipe
from batchscale.system import notes


@pytest.fixture
def host(monkeypatch, tmp_path):
    """A host as a table's row describes it; the device that a process of it chooses."""
    (tmp_path / "dev" / "shm").mkdir(parents=True)
    monkeypatch.setattr(hardware.os, "statvfs", lambda _: SimpleNamespace(f_blocks=1 << 20, f_frsize=4096))
    monkeypatch.setattr(notes, "_noted", set())
    chosen = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)

    def choose(wanted, gpus, place, processes, visible=None, files=()):
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        monkeypatch.setenv("LOCAL_RANK", str(place))
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        for file in files:
            (tmp_path / "dev" / file).touch()
        chosen.clear()
        device = choose_device(load_recipe("digits-cnn", [f"execution.device={wanted}"]), str(tmp_path))
        assert chosen == ([device] if device.type == "cuda" else [])
        return device

    return choose


@pytest.mark.parametrize("wanted", ["auto", "cuda"])
@pytest.mark.parametrize(
    ("gpus", "place", "processes", "index"),
    [
        (8, 0, 8, 0),
        (8, 5, 8, 5),
        (8, 3, 4, 3),
        (1, 0, 1, 0),
        (1, 3, 8, 0),  # a task of a cluster that sees its own alone: the CPU, in silence, on 91b3349
        (2, 1, 2, 1),
    ],
)
def test_a_process_takes_its_own_gpu(host, wanted, gpus, place, processes, index):
    assert host(wanted, gpus, place, processes, visible="4") == torch.device("cuda", index)


@pytest.mark.parametrize("wanted", ["auto", "cuda"])
@pytest.mark.parametrize(("gpus", "place", "processes"), [(2, 0, 4), (7, 7, 8), (2, 3, 4)])
def test_fewer_gpus_than_processes_are_an_error_on_each_of_them(host, wanted, gpus, place, processes):
    with pytest.raises(RecipeError, match=rf"={wanted}: this host has {processes} processes and {gpus} GPUs.*; use "):
        host(wanted, gpus, place, processes)


@pytest.mark.parametrize(("gpus", "place", "index"), [(1, 2, 0), (2, 3, 1), (8, 7, 7)])
def test_processes_may_share_gpus_where_the_user_says_so(host, monkeypatch, gpus, place, index):
    monkeypatch.setenv("BATCHSCALE_SHARE_GPUS", "1")
    assert host("auto", gpus, place, 8) == torch.device("cuda", index)
    check_devices([Device("cuda", "H", "a")] * 2)


@pytest.mark.parametrize("wanted", ["auto", "cuda"])
def test_a_place_alone_tells_of_as_many_processes(host, monkeypatch, wanted):
    """As where LOCAL_RANK was set and LOCAL_WORLD_SIZE was not: cuda:3 of 2, and a traceback, before."""
    with pytest.raises(RecipeError, match=r"this host has 4 processes and 2 GPUs.*; use 2 processes here"):
        host(wanted, 2, 3, 1)


def test_without_gpus_auto_is_the_cpu_and_cuda_an_error(host, capsys):
    assert host("auto", 0, 0, 4) == host("auto", 0, 0, 1, visible="-1") == torch.device("cpu")
    assert host("cpu", 8, 3, 16) == torch.device("cpu")
    assert capsys.readouterr().err == ""
    with pytest.raises(RecipeError, match=r"process 2 of this host has no GPU; use execution\.device=cpu"):
        host("cuda", 0, 2, 4)


@pytest.mark.parametrize(
    ("visible", "files", "sign"),
    [(None, ["nvidia0", "nvidiactl"], "/dev/nvidia0 is there"), ("0,1", [], "CUDA_VISIBLE_DEVICES=0,1 names one")],
)
def test_gpus_that_cannot_be_used_are_told_once_a_host(host, capsys, visible, files, sign):
    assert host("auto", 0, 1, 2, visible, files) == torch.device("cpu")
    assert capsys.readouterr().err == ""
    assert host("auto", 0, 0, 2, visible, files) == torch.device("cpu")
    told = capsys.readouterr().err
    assert told.startswith(f"note: no GPU can be used, though {sign}: training on the CPU; ")
    assert told.count("\n") == 1
    with pytest.raises(RecipeError, match=f"has no GPU, though {sign}; "):
        host("cuda", 0, 1, 2, visible, files)


def gpus(*uuids, name="H"):
    return [Device("cuda", name, uuid) for uuid in uuids]


@pytest.mark.parametrize(
    ("seen", "message"),
    [
        (gpus("a", "b", "c", "d"), None),
        (gpus("", "", "", ""), None),  # a torch that does not tell
        ([Device("cpu")] * 4, None),
        (gpus("a", "b", "a", "c"), r": ranks 0, 2 share a GPU \(H, a\)"),  # of one host, or of two containers
        (gpus("a", "b", "c", "c"), r": ranks 2, 3 share"),
        ([*gpus("a", "b", "c"), Device("cpu")], r": rank 3 of 4 trains on the CPU and the others on GPU"),
        ([*gpus("a", "b"), *[Device("cpu")] * 2], r": ranks 2, 3 of 4 train on the CPU"),
        ([*gpus("a"), *[Device("cpu")] * 2000], r": ranks 1-2000 of 2001 train on"),
    ],
)
def test_ranks_whose_devices_cannot_reduce_together_are_named(seen, message):
    if message is None:
        check_devices(seen)
        return
    with pytest.raises(UsageError, match=message) as raised:
        check_devices(seen)
    assert "set execution.device=cpu" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_several_models_are_noted():
    assert differing_models(gpus("a", "b")) is None
    assert differing_models([Device("cpu")] * 3) is None
    mixed = differing_models([*gpus("a", "b", name="H200"), *gpus("c", name="A100")])
    assert mixed == "GPUs of several models: H200 (2 ranks), A100 (1 rank); the slowest sets the pace"


def test_the_device_in_words(monkeypatch):
    properties = SimpleNamespace(name="NVIDIA H200", uuid="a")
    monkeypatch.setattr(devices.torch.cuda, "get_device_properties", lambda _: properties)
    cuda, cpu = torch.device("cuda", 0), torch.device("cpu")
    two, shared = gpus("a", "b"), gpus("a", "a")
    assert [device_text(cuda, devices) for devices in ([], two, shared)] == [
        "NVIDIA H200 (cuda:0)", "NVIDIA H200 (cuda:0), NCCL", "NVIDIA H200 (cuda:0), Gloo",
    ]  # fmt: skip
    assert [device_text(cpu, devices) for devices in ([], [Device("cpu")] * 2)] == ["cpu", "cpu, Gloo"]


@pytest.mark.parametrize(("mebibytes", "processes", "noted"), [(64, 2, True), (64, 1, False), (1024, 8, False)])
def test_little_shared_memory_is_noted_beside_several_gpus(monkeypatch, mebibytes, processes, noted):
    monkeypatch.setattr(hardware.os, "statvfs", lambda _: SimpleNamespace(f_blocks=mebibytes << 8, f_frsize=4096))
    line = little_shared_memory(processes)
    assert (line is not None) is noted
    assert line is None or line.startswith(f"/dev/shm has {mebibytes} MiB, and NCCL may need 1 GiB for {processes} ")
    assert line is None or line.endswith("--shm-size=1g, or mount an emptyDir of medium Memory at /dev/shm")


def test_no_shared_memory_is_noted_where_the_device_is_chosen(host, monkeypatch, capsys):
    def missing(_):
        raise FileNotFoundError

    monkeypatch.setattr(hardware.os, "statvfs", missing)
    host("cuda", 2, 1, 2)
    assert capsys.readouterr().err == ""  # once a host
    host("cuda", 2, 0, 2)
    assert capsys.readouterr().err.startswith("note: /dev/shm is missing, and NCCL may need 1 GiB for 2 processes")
