"""A contender from the parent's side: W processes in torchrun's environment, that run when told to, and block else."""

from __future__ import annotations

import contextlib
import json
import os
import random
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from batchscale.errors import ProcessError
from batchscale.system.interpreter import without_working_folder
from batchscale.system.temporary import temporary_place

_READY_SECONDS = 180.0  # importing, reading the data, calibrating, the first step
_BLOCK_SECONDS = 120.0  # what a block may take beyond ten times its expected time
_END_SECONDS = 30.0  # from its last word to its end
_CHECK_SECONDS = 0.1
_PORTS = range(10_000, 20_000)  # below those that Linux gives by itself, and those of a cluster's jobs
_CHANCE = random.SystemRandom()  # whatever seed was set


class Order(Protocol):
    """What W processes are told to do; its one line is read by their module."""

    @property
    def processes(self) -> int:
        """W."""

    @property
    def threads(self) -> int:
        """Of each process."""

    def to_json(self) -> str:
        """As one line, for a process's command line."""


@dataclass(frozen=True)
class Block:
    """Some steps of one contender: from "go" to the last process's "done", and CPU seconds of all processes.

    Args:
        answers: all that each process answered, in rank order.
    """

    steps: int
    wall_seconds: float
    cpu_seconds: float
    answers: Sequence[Mapping[str, Any]] = ()


class Contender:
    """W long-lived processes: ``start`` and ``ready`` once, then ``block`` in turn with others, ``close`` at the end.

    Args:
        name: of the contender.
        assignment: what it does.
        scratch: a folder that lives as long as the benchmark.
        check: called while waiting; what it raises ends the wait.
        kind: what names its processes' module (``child.module_of``), where that is not the name.
        frozen: stop its processes, and all that they start, between its blocks: they work ahead of the steps.
    """

    def __init__(
        self,
        name: str,
        assignment: Order,
        scratch: Path,
        check: Callable[[], None],
        *,
        kind: str | None = None,
        frozen: bool = False,
    ) -> None:
        self.name, self._kind, self._frozen = name, kind or name, frozen
        self.notes: dict[str, Any] = {}
        self._assignment, self._scratch, self._check = assignment, scratch, check
        self._processes: list[subprocess.Popen[bytes]] = []
        self._errors: list[IO[bytes]] = []

    def start(self) -> None:
        """Start all W processes."""
        common = self._environment()
        for rank in range(self._assignment.processes):
            self._start(common | {"RANK": str(rank), "LOCAL_RANK": str(rank)})

    def _start(self, environment: dict[str, str]) -> None:
        errors = tempfile.TemporaryFile(dir=temporary_place())  # noqa: SIM115 - closed by close()
        self._errors.append(errors)
        self._processes.append(
            subprocess.Popen(
                self._command(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, **environment},
                start_new_session=True,
            )
        )

    def _environment(self) -> dict[str, str]:
        """What torchrun would set on one host, all on loopback."""
        return _environment(self._assignment, self._scratch)

    def _command(self) -> list[str]:
        """What every process runs."""
        module = "batchscale.bench.child"
        return [sys.executable, "-m", module, self._kind, self._assignment.to_json(), str(os.getpid())]

    def ready(self) -> None:
        """Wait until every process has set up and taken its first step; keeps what they noted.

        Raises:
            ProcessError: a process ended or does not answer; tells its last line on standard error.
        """
        for answer in self._answers(_READY_SECONDS):
            self.notes |= {n: v for n, v in answer.items() if n not in ("steps", "wall_seconds", "cpu_seconds")}
        if self._frozen:
            self._signal(signal.SIGSTOP)

    def block(self, steps: int, expected_seconds: float = 0.0) -> Block:
        """Have all processes take so many steps.

        Raises:
            ProcessError: a process ended or does not answer.
        """
        if self._frozen:
            self._signal(signal.SIGCONT)
        start = time.perf_counter()
        answers = self.ask(steps, expected_seconds)
        wall_seconds = time.perf_counter() - start
        if self._frozen:
            self._signal(signal.SIGSTOP)
        return Block(steps, wall_seconds, sum(a["cpu_seconds"] for a in answers), answers)

    def _signal(self, number: signal.Signals) -> None:
        """To every process, and to all that they have started."""
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, number)

    def ask(self, order: Any, expected_seconds: float = 0.0) -> list[dict[str, Any]]:
        """Give all processes an order, and wait for what each answers.

        Raises:
            ProcessError: a process ended or does not answer.
        """
        for rank, process in enumerate(self._processes):
            assert process.stdin is not None
            try:
                process.stdin.write(f"{json.dumps(order)}\n".encode())
                process.stdin.flush()
            except OSError:
                raise self._ended(rank) from None
        return self._answers(_BLOCK_SECONDS + 10 * expected_seconds)

    def _answers(self, timeout_seconds: float) -> list[dict[str, Any]]:
        """One line of each process, in rank order."""
        deadline = time.monotonic() + timeout_seconds
        read = [b""] * len(self._processes)
        with selectors.DefaultSelector() as selector:
            for rank, process in enumerate(self._processes):
                assert process.stdout is not None
                selector.register(process.stdout, selectors.EVENT_READ, rank)
            while selector.get_map():
                ready = selector.select(_CHECK_SECONDS)
                self._check()
                if not ready and time.monotonic() > deadline:
                    silent = ", ".join(str(key.data) for key in selector.get_map().values())
                    raise ProcessError(f"{self.name}: rank {silent} did not answer within {timeout_seconds:.0f} s")
                for key, _ in ready:
                    chunk = os.read(key.fd, 1 << 16)
                    if not chunk:
                        raise self._ended(key.data)
                    read[key.data] += chunk
                    if chunk.endswith(b"\n"):
                        selector.unregister(key.fileobj)
        return [json.loads(line) for line in read]

    def _ended(self, rank: int) -> ProcessError:
        try:
            code = self._processes[rank].wait(timeout=_END_SECONDS)
        except subprocess.TimeoutExpired:
            return ProcessError(f"{self.name}: rank {rank} stopped answering")
        self._errors[rank].seek(0)
        lines = [line for line in self._errors[rank].read().decode(errors="replace").splitlines() if line.strip()]
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        silence = "the machine may have run out of memory" if code == -signal.SIGKILL else "it said nothing"
        return ProcessError(f"{self.name}: rank {rank} {how}: {lines[-1].strip() if lines else silence}")

    def close(self) -> None:
        """End all processes at once: they hold nothing worth saving."""
        self._signal(signal.SIGKILL)
        for process in self._processes:
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()
        for file in self._errors:
            file.close()


def free_port() -> int:
    """One that no process of this machine listens on now, nor is given by the system before it is used."""
    while True:
        port = _CHANCE.choice(_PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def _environment(assignment: Order, scratch: Path) -> dict[str, str]:
    size = str(assignment.processes)
    bytecode = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(scratch / "bytecode")}
    return {
        **without_working_folder(),
        **(bytecode if sys.dont_write_bytecode else {}),  # else every process compiles all of torch anew: 3 to 6 s
        "WORLD_SIZE": size,
        "LOCAL_WORLD_SIZE": size,
        "GROUP_RANK": "0",
        "GROUP_WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "TORCHELASTIC_RUN_ID": uuid.uuid4().hex,
        "TORCHELASTIC_RESTART_COUNT": "0",
        "GLOO_SOCKET_IFNAME": "lo" if sys.platform == "linux" else "lo0",
        "OMP_NUM_THREADS": str(assignment.threads),
        "CUDA_VISIBLE_DEVICES": "",
        "TORCH_CPP_LOG_LEVEL": "ERROR",
        "TMPDIR": str(scratch),  # what a killed process leaves there goes with it
    }
