"""A process that decodes images for another one: told which, it writes their pixels into memory that both see.

Started as a program of its own, it reads the entries, then forks into as many as are wanted while it has no threads:
torch is loaded once, and nothing of the process that trains is copied: no device, no lock, no file. What comes over a
socket, and what goes back, is a few numbers an image.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import pickle
import signal
import sys
from collections.abc import Sequence
from multiprocessing.connection import Connection

import numpy as np
import torch

from batchscale.data.folders.entries import Entries
from batchscale.data.folders.jpeg import render
from batchscale.data.folders.views import ViewOf

MOST_IMAGES = 16
"""Of one request: pixels of so many lie in the memory of each process."""

Request = tuple[int, ViewOf, bool]
"""An entry's number, its view, and whether it is mirrored."""


def pixels_in(memory: int, processes: int, size: int) -> torch.Tensor:
    """The memory of all processes as images: uint8 (processes, MOST_IMAGES, 3, size, size), channels last.

    Args:
        memory: handle of its file.
        processes: that decode.
        size: height and width of an image.
    """
    shape = (processes, MOST_IMAGES, size, size, 3)
    mapped = mmap.mmap(memory, int(np.prod(shape)))
    return torch.from_numpy(np.frombuffer(mapped, np.uint8).reshape(shape)).permute(0, 1, 4, 2, 3)


def _serve(connection: Connection, parts: Sequence[Entries], pixels: torch.Tensor) -> None:
    """Decode what is asked for, and answer with the places of those that could not be, until nobody asks any more."""
    while True:
        part, requests = connection.recv()
        failed = []
        for place, (entry, view_of, flip) in enumerate(requests):
            try:
                render(parts[part].read(entry), view_of, flip, pixels[place : place + 1])
            except Exception:  # who asked tries again, and says what is wrong
                failed.append(place)
        connection.send(failed)


def _fork(handles: Sequence[int], place: int) -> bool:
    """Whether this is the new process. It keeps its own socket alone: else nobody would see another one's end."""
    if os.fork():
        return False
    for other, handle in enumerate(handles):
        if other != place:
            os.close(handle)
    return True


def main() -> None:
    """Fork into the processes, and wait for their end.

    Arguments are open handles, of the memory and of a socket for each process; the entries of all parts, and the size
    of an image, come on standard input.
    """
    memory, *handles = (int(handle) for handle in sys.argv[1:])
    # What stops a run may reach its whole group, and a run needs its images to stop well. These end with their socket.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    try:
        parts, size = pickle.load(sys.stdin.buffer)
    except EOFError:  # who has started this is gone
        return
    torch.set_num_threads(1)
    pixels = pixels_in(memory, len(handles), size)
    for place, handle in enumerate(handles):
        if _fork(handles, place):
            with contextlib.suppress(EOFError, OSError):  # who asks is gone
                _serve(Connection(handle), parts, pixels[place])
            os._exit(0)
    for handle in handles:
        os.close(handle)
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()
