"""Processes that decode images, from the side of the process that trains: one for each of its decoding threads.

A thread that decodes holds the interpreter lock for a fifth of the time, and the thread that trains needs it for every
kernel. A thread that waits for a process holds it for some 0.1 ms in 16 images.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Sequence
from multiprocessing.connection import Connection
from queue import SimpleQueue

import torch

from batchscale.data.folders import decoding
from batchscale.data.folders.decoding import MOST_IMAGES, Request, pixels_in
from batchscale.data.folders.entries import Entries
from batchscale.system.interpreter import without_working_folder
from batchscale.system.memory_file import memory_file
from batchscale.system.notes import note

_PROGRAM = f"from {decoding.__name__} import main; main()"
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
_END_SECONDS = 5.0


class _Decoder:
    """One process, or what is left of it."""

    def __init__(self, connection: Connection, pixels: torch.Tensor) -> None:
        self._connection: Connection | None = connection
        self._pixels = pixels

    def decode(self, part: int, requests: Sequence[Request], out: torch.Tensor) -> Sequence[int]:
        """Fill ``out``; the places that could not be decoded: all, where the process has died."""
        if self._connection is None:
            return range(len(requests))
        try:
            self._connection.send((part, requests))
            failed: list[int] = self._connection.recv()
        except (EOFError, OSError):
            self._connection = None
            note(
                "a process that decodes images has died (too little memory?): a thread decodes in its place from here "
                "on; execution.decoders=threads needs none"
            )
            return range(len(requests))
        out.copy_(self._pixels[: len(requests)])
        return failed


class DecodingProcesses:
    """Processes that decode, started at the first request, as long as this object lives.

    Args:
        parts: the images, of training and of evaluation.
        size: height and width of what is made.
        processes: how many.
    """

    def __init__(self, parts: Sequence[Entries], size: int, processes: int) -> None:
        self._parts, self._size, self.processes = parts, size, processes
        self._lock, self._begun, self._can_be = threading.Lock(), False, True
        self._idle: SimpleQueue[_Decoder] = SimpleQueue()

    def decode(self, entries: Entries, requests: Sequence[Request], out: torch.Tensor) -> Sequence[int]:
        """Decode at most MOST_IMAGES into out, uint8 (m, 3, size, size).

        Args:
            entries: the part.
            requests: which images, seen how.
            out: written.

        Returns:
            The places that could not be decoded, whatever the reason.
        """
        with self._lock:
            if not self._begun:
                self._begun = True
                self._can_be = self._begin()
        if not self._can_be:
            return range(len(requests))
        part = next(number for number, each in enumerate(self._parts) if each is entries)
        decoder = self._idle.get()
        try:
            return decoder.decode(part, requests, out)
        finally:
            self._idle.put(decoder)

    def _begin(self) -> bool:
        """Start them; False where the system does not let it be."""
        handles: list[socket.socket] = []
        memory = None
        try:
            memory = memory_file("batchscale-pixels")
            os.ftruncate(memory, self.processes * MOST_IMAGES * 3 * self._size**2)
            pixels = pixels_in(memory, self.processes, self._size)
            pairs = [socket.socketpair() for _ in range(self.processes)]
            handles = [theirs for _, theirs in pairs]
            server = self._start(memory, [theirs.fileno() for theirs in handles])
        except OSError as error:
            note(f"images are decoded by threads, as processes cannot be had ({error.strerror or error})")
            return False
        finally:
            for handle in handles:
                handle.close()
            if memory is not None:
                os.close(memory)
        connections = [Connection(ours.detach()) for ours, _ in pairs]
        weakref.finalize(self, _end, connections, server)
        for place, connection in enumerate(connections):
            self._idle.put(_Decoder(connection, pixels[place]))
        return True

    def _start(self, memory: int, handles: Sequence[int]) -> subprocess.Popen[bytes]:
        """The program that forks into them."""
        server = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, str(memory), *map(str, handles)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env={**os.environ, **without_working_folder(), **_ONE_THREAD, "CUDA_VISIBLE_DEVICES": ""},
            pass_fds=(memory, *handles),
        )
        assert server.stdin is not None
        # It takes the entries when it has loaded torch: nobody need wait for it before there is something to decode.
        threading.Thread(target=_tell, args=(server, (self._parts, self._size)), daemon=True).start()
        return server


def _tell(server: subprocess.Popen[bytes], content: object) -> None:
    assert server.stdin is not None
    with contextlib.suppress(OSError), server.stdin as stdin:  # one that has died is seen by its sockets
        pickle.dump(content, stdin)


def _end(connections: Sequence[Connection], server: subprocess.Popen[bytes]) -> None:
    for connection in connections:
        connection.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        server.wait(_END_SECONDS)
        return
    server.kill()
    server.wait()
