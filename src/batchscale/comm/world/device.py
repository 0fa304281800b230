"""What a world knows of its devices, and how the host waits for one.

NCCL's ``work.wait()`` makes the device's stream wait and returns at once. So the host waits for an event behind it,
with a bound, in place of blocking in the first copy from the device for ever.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import torch

from batchscale.comm.world.patience import Patience
from batchscale.comm.world.store import in_words
from batchscale.errors import UsageError
from batchscale.words import counted

_SPIN_SECONDS, _SLEEP_SECONDS = 200e-6, 100e-6
_MAY_SHARE = "BATCHSCALE_SHARE_GPUS"


class Event(Protocol):
    """A place in a device's queue."""

    def query(self) -> bool:
        """Whether the device has come so far."""


class DeviceQueue(Protocol):
    """A device's queue, as far as reductions need it."""

    def mark(self) -> Event:
        """An event behind all that the device has been given on the current stream."""

    def follow(self, event: Event) -> None:
        """What is given on the current stream from here on runs behind an event; the host goes on."""

    def aside(self) -> AbstractContextManager[None]:
        """What is given in it runs beside the current stream, behind all that was given before."""


class CudaQueue:
    """The queue of a GPU.

    Args:
        device: with its index.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._side: torch.cuda.Stream | None = None

    def mark(self) -> Event:
        """An event behind all that the device has been given on the current stream."""
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self._device))
        return event

    def follow(self, event: Event) -> None:
        """What is given on the current stream from here on runs behind an event; the host goes on."""
        torch.cuda.current_stream(self._device).wait_event(event)  # type: ignore[arg-type]  # one of `mark`

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """What is given in it runs on one side stream, behind all that was given before."""
        if self._side is None:
            self._side = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        self._side.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._side):
            yield


def wait_on_host(event: Event, patience: Patience) -> None:
    """Block until the device has come to an event.

    Raises:
        RuntimeError: it did not in time, or another rank has failed.
    """
    start = time.monotonic()
    while not event.query():
        if time.monotonic() - start < _SPIN_SECONDS:
            continue
        if patience.over(start):
            lasted = f"{patience.lasted(start):g} s"
            raise RuntimeError(f"timed out after {lasted}: the device still waits for the other ranks")
        if patience.someone_failed():
            raise RuntimeError("another rank failed while the device waited for it")
        time.sleep(_SLEEP_SECONDS)


@dataclass(frozen=True)
class Device:
    """A rank's device, in what tells it from others.

    Args:
        kind: cpu or cuda.
        name: of the model; "" for a cpu.
        uuid: of this very one; "" for a cpu.
    """

    kind: str
    name: str = ""
    uuid: str = ""


def describe(device: torch.device) -> Device:
    """The device as the other ranks are to know it."""
    if device.type != "cuda":
        return Device(device.type)
    properties = torch.cuda.get_device_properties(device)
    return Device("cuda", properties.name, str(getattr(properties, "uuid", "")))


def device_text(device: torch.device, devices: Sequence[Device]) -> str:
    """A process's device, and how the ranks talk, in words.

    Args:
        device: of this process.
        devices: of every rank; empty where there is one process alone.
    """
    description = describe(device)
    by_nccl = description.kind == "cuda" and not sharing(devices)
    name = f"{description.name} ({device})" if description.kind == "cuda" else description.kind
    return f"{name}, {'NCCL' if by_nccl else 'Gloo'}" if len(devices) > 1 else name


def may_share() -> bool:
    """Whether the user says that processes may share a GPU, to rehearse a run of more GPUs than there are."""
    return os.environ.get(_MAY_SHARE) == "1"


def sharing(devices: Sequence[Device]) -> dict[str, list[int]]:
    """The GPUs that several ranks have: their ranks, by uuid. NCCL refuses such ranks, Gloo sums over the host."""
    ranks: dict[str, list[int]] = {}  # of all hosts together: two containers are two hosts, and may have one GPU
    for rank, device in enumerate(devices):
        if device.uuid:
            ranks.setdefault(device.uuid, []).append(rank)
    return {uuid: together for uuid, together in ranks.items() if len(together) > 1}


def check_devices(devices: Sequence[Device]) -> None:
    """Raise unless the ranks' devices can reduce together.

    Args:
        devices: of every rank.

    Raises:
        UsageError: some ranks are on the CPU and some on GPUs, or two share a GPU and the user did not say they may.
    """
    without = [rank for rank, device in enumerate(devices) if device.kind != "cuda"]
    if 0 < len(without) < len(devices):
        raise UsageError(
            f"execution.device: {_ranks(without)} of {len(devices)} train{'s' * (len(without) == 1)} on the CPU and "
            f"the others on GPUs: all must see the same; give every task a GPU, or set execution.device=cpu"
        )
    for uuid, together in sharing(devices).items():
        if not may_share():
            raise UsageError(
                f"execution.device: {_ranks(together)} share a GPU ({devices[together[0]].name}, {uuid}): each process "
                f"needs its own; start fewer processes, give each task its own GPU (Slurm: --gpus-per-task=1), or set "
                f"execution.device=cpu; to rehearse, slowly, {_MAY_SHARE}=1 lets them share"
            )


def differing_models(devices: Sequence[Device]) -> str | None:
    """That the ranks' GPUs are of several models, as a line for a user; None where they are of one."""
    names: dict[str, list[int]] = {}
    for rank, device in enumerate(devices):
        names.setdefault(device.name, []).append(rank)
    if len(names) < 2:
        return None
    models = ", ".join(f"{name} ({counted(len(ranks), 'rank')})" for name, ranks in names.items())
    return f"GPUs of several models: {models}; the slowest sets the pace"


def _ranks(ranks: Sequence[int]) -> str:
    """A few ranks as a subject: ``rank 3``, ``ranks 3, 17-20``."""
    return in_words(ranks).replace("rank", "ranks" if len(ranks) > 1 else "rank", 1)
