"""Checkpoints written beside the training: the state is copied at once, a thread writes it while steps go on.

The copy is the file itself: one buffer of bytes, header and tensors in the order of the format, pinned where the state
is a GPU's. So nothing is laid out, or copied, a second time, and hashing and writing leave the interpreter to the
training. One checkpoint is under way at most; who begins the next one, or ends, waits for it.

Cost: the training waits for one copy of the state (on a GPU its stream does), and the host keeps one.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save as save_safetensors

from batchscale.comm.world.device import DeviceQueue, Event
from batchscale.training import checkpoint as checkpoints
from batchscale.training.checkpoint import Checkpoint

_LENGTH_BYTES = _ALIGN_BYTES = 8  # of a safetensors file: the header's length; a multiple of it is where tensors begin
_LOOK_SECONDS = 1e-3


class StateFile:
    """A safetensors file in memory, of tensors of these names, types and shapes; the bytes are `to_bytes`'s."""

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        self._forms = _forms(tensors)
        header, places = _layout(tensors)
        end = max((last for _, last in places.values()), default=0)
        pinned = any(tensor.is_cuda for tensor in tensors.values())  # or its copies would stop the host
        self._bytes = torch.empty(len(header) + end, dtype=torch.uint8, pin_memory=pinned)
        self._bytes[: len(header)] = torch.frombuffer(bytearray(header), dtype=torch.uint8)
        body = self._bytes[len(header) :]
        self._views = {
            name: body[first:last].view(tensors[name].dtype).view(tensors[name].shape)
            for name, (first, last) in places.items()
        }

    def fits(self, tensors: Mapping[str, torch.Tensor]) -> bool:
        """Whether these tensors have the same names, types and shapes."""
        return self._forms == _forms(tensors)

    @torch.no_grad()
    def copy(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take these values; from a GPU they are there when its stream has come so far."""
        for name, view in self._views.items():
            view.copy_(tensors[name], non_blocking=True)

    @property
    def content(self) -> memoryview:
        """All bytes of the file."""
        return self._bytes.numpy().data


def _forms(tensors: Mapping[str, torch.Tensor]) -> dict[str, tuple[torch.dtype, torch.Size]]:
    return {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()}


def _layout(tensors: Mapping[str, torch.Tensor]) -> tuple[bytes, dict[str, tuple[int, int]]]:
    """The file's header, and where each tensor's bytes begin and end behind it."""
    # The library is asked for its order and its names of types, by tensors that hold nothing.
    empty = save_safetensors({name: torch.empty(0, dtype=tensor.dtype) for name, tensor in tensors.items()})
    entries = json.loads(empty[_LENGTH_BYTES:][: int.from_bytes(empty[:_LENGTH_BYTES], "little")])
    places, end = {}, 0
    for name, entry in entries.items():
        places[name] = (end, end := end + tensors[name].nbytes)
        entry.update(shape=list(tensors[name].shape), data_offsets=list(places[name]))
    header = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    header += b" " * (-len(header) % _ALIGN_BYTES)
    return len(header).to_bytes(_LENGTH_BYTES, "little") + header, places


@dataclass
class _Writing:
    """A checkpoint under way: its thread, and the error that ended it."""

    thread: threading.Thread
    error: BaseException | None = None


class Saver:
    """Writes the checkpoints of one run, each by a thread of its own.

    Args:
        out: the run's folder.
        queue: of the GPU that holds the state; None on the CPU.
    """

    def __init__(self, out: Path, queue: DeviceQueue | None = None) -> None:
        self._out, self._queue = out, queue
        self._file: StateFile | None = None
        self._writing: _Writing | None = None

    def begin(self, checkpoint: Checkpoint, stays: Callable[[int], bool]) -> None:
        """Copy the state, and have it written; the values may change as soon as this returns.

        Args:
            checkpoint: live tensors, and plain values that nobody changes any more.
            stays: as ``checkpoint.save`` takes it; asked before this returns.

        Raises:
            FolderError: the checkpoint before this one could not be written.
        """
        self.wait()
        if self._file is None or not self._file.fits(checkpoint.tensors):
            self._file = StateFile(checkpoint.tensors)
        event = self._copy(self._file, checkpoint.tensors)
        steps = [checkpoint.step, *map(checkpoints.steps_of, checkpoints.folders(self._out))]
        kept = frozenset(step for step in steps if stays(step))
        # Daemonic: where a person does not wait, the process ends, and the checkpoint before counts.
        thread = threading.Thread(
            target=self._write, args=(self._file, event, checkpoint, kept), name="batchscale-checkpoint", daemon=True
        )
        self._writing = _Writing(thread)
        thread.start()

    def _copy(self, file: StateFile, tensors: Mapping[str, torch.Tensor]) -> Event | None:
        """Begin the copy; returns what tells its end, None where it has ended."""
        if self._queue is None:
            file.copy(tensors)
            return None
        with self._queue.aside():
            file.copy(tensors)
            event = self._queue.mark()
        self._queue.follow(event)  # the next update changes what is copied
        return event

    def _write(self, file: StateFile, event: Event | None, checkpoint: Checkpoint, kept: frozenset[int]) -> None:
        writing = self._writing
        assert writing is not None
        try:
            while event is not None and not event.query():
                time.sleep(_LOOK_SECONDS)
            checkpoints.save(self._out, checkpoint, kept.__contains__, file.content)
        except BaseException as error:
            writing.error = error

    @property
    def failed(self) -> bool:
        """Whether the checkpoint under way has failed: who waits for it learns why."""
        return self._writing is not None and self._writing.error is not None

    def wait(self) -> None:
        """Have the checkpoint under way on the disk.

        Raises:
            FolderError: it could not be written; those before are untouched.
        """
        if self._writing is None:
            return
        self._writing.thread.join()
        writing, self._writing = self._writing, None
        if writing.error is not None:
            raise writing.error
