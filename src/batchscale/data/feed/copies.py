"""Copies to a device beside its computing: the seam between the feed and a device's streams.

A device runs what it is given in the order of a stream, and the host goes on. So two things may go wrong that no error
tells of: host memory is written anew before a copy has read it, and a computation reads a copy that is not there yet.
Both are ruled out by the event that is recorded behind every copy: the host waits for it before it writes, and the
stream that computes waits for it before it reads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch


@dataclass(frozen=True)
class Copy:
    """Bytes on their way to a device.

    Attributes:
        bytes: on the device; to be read after ``Copies.join``.
        event: done when they are there; None where nobody need wait.
    """

    bytes: torch.Tensor
    event: Any = None


class Copies(Protocol):
    """What a device can copy, and who waits for it."""

    def memory(self, num_bytes: int) -> torch.Tensor:
        """Memory of the host that the device copies from, uint8 (num_bytes,)."""

    def begin(self, source: torch.Tensor) -> Copy:
        """Begin to copy, and go on."""

    def join(self, copy: Copy) -> None:
        """Let what this thread computes from now on, on the device, come after the copy."""

    def wait(self, event: Any) -> None:
        """Wait here until the source of the copy with this event may be written anew."""


class PlainCopies:
    """Of a device without streams, or the meta device: the host waits for every copy.

    Args:
        device: copied to.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def memory(self, num_bytes: int) -> torch.Tensor:
        """As any other."""
        return torch.empty(num_bytes, dtype=torch.uint8)

    def begin(self, source: torch.Tensor) -> Copy:
        """Copy."""
        return Copy(source.to(self._device))

    def join(self, copy: Copy) -> None:
        """Nothing: it is there."""

    def wait(self, event: Any) -> None:
        """Nothing: it was read."""


class CudaCopies:
    """From pinned memory, on a stream of its own; not yet run on a GPU.

    From memory that is not pinned a copy would first wait for the streams, and then run between their kernels.

    Args:
        device: a GPU.

    Source: docs.pytorch.org/docs/stable/notes/cuda.html ("Use pinned memory buffers", "CUDA streams").
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def memory(self, num_bytes: int) -> torch.Tensor:
        """Pinned."""
        with torch.cuda.device(self._device):  # a thread begins on the first GPU, and would open that one, too
            return torch.empty(num_bytes, dtype=torch.uint8, pin_memory=True)

    def begin(self, source: torch.Tensor) -> Copy:
        """Copy on the stream of copies."""
        # Who waits for it sleeps.
        event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        with torch.cuda.stream(self._stream):
            target = source.to(self._device, non_blocking=True)
            event.record(self._stream)
        return Copy(target, event)

    def join(self, copy: Copy) -> None:
        """The current stream waits, and the allocator gives the bytes to nobody before it has read them."""
        stream = torch.cuda.current_stream(self._device)
        stream.wait_event(copy.event)
        copy.bytes.record_stream(stream)

    def wait(self, event: Any) -> None:
        """Until the event is done."""
        event.synchronize()


def copies_of(device: torch.device) -> Copies:
    """Of a device."""
    return CudaCopies(device) if device.type == "cuda" else PlainCopies(device)
