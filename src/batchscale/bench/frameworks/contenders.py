"""The contenders: a program each, and the environment that it runs in."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from batchscale.bench.contender import Contender, free_port
from batchscale.errors import ProcessError

PROGRAMS = Path(__file__).parent / "programs"
_STARTS = 3  # a port that was free may be another's when it is taken
_IN_USE = ("address already in use", "address in use", "eaddrinuse", "unavailable: could not start grpc server")


@dataclass(frozen=True)
class FrameworkKind:
    """One of the frameworks.

    Attributes:
        name: of the contender.
        program: its file.
        environment: the folder of its virtual environment below that of all; "": batchscale's own.
        title: for people.
    """

    name: str
    program: str
    environment: str
    title: str

    def interpreter(self, environments: Path) -> Path:
        """The Python that it runs with."""
        return environments / self.environment / "bin" / "python" if self.environment else Path(sys.executable)


KINDS = (
    FrameworkKind("batchscale", "ours.py", "", "batchscale"),
    FrameworkKind("ddp", "ddp.py", "", "PyTorch DistributedDataParallel"),
    FrameworkKind("tensorflow", "tensorflow_workers.py", "tensorflow", "TensorFlow MultiWorkerMirroredStrategy"),
    FrameworkKind("jax", "jax_gloo.py", "jax", "JAX"),
)


def available(environments: Path) -> tuple[list[FrameworkKind], list[str]]:
    """Those that can run here, and a note for each that cannot.

    Args:
        environments: the folder that ``make frameworks`` fills.
    """
    there, notes = [], []
    for kind in KINDS:
        if kind.interpreter(environments).exists():
            there.append(kind)
        else:
            folder = environments / kind.environment
            notes.append(f"{kind.name} is left out: no environment in {folder}; make it with: make frameworks")
    return there, notes


@dataclass(frozen=True)
class FrameworkWork:
    """What a program's processes are told when they start; see ``programs/protocol.py``."""

    folder: str
    net: str
    content: Mapping[str, Any]
    data_folder: str | None
    processes: int
    threads: int
    ports: Sequence[int] = ()

    def over(self, processes: int) -> FrameworkWork:
        """The same by so many processes."""
        return replace(self, processes=processes)

    def to_json(self) -> str:
        """As one line, for a process's command line; with ports that are free now."""
        ports = [free_port() for _ in range(self.processes)]
        return json.dumps({**asdict(self), "ports": ports})


class FrameworkContender(Contender):
    """W processes of a framework's program."""

    def __init__(
        self,
        kind: FrameworkKind,
        work: FrameworkWork,
        scratch: Path,
        check: Callable[[], None],
        environments: Path,
    ) -> None:
        super().__init__(kind.name, work, scratch, check)
        self._interpreter = kind.interpreter(environments)
        self._program = str(PROGRAMS / kind.program)
        self._line = ""

    def _command(self) -> list[str]:
        return [str(self._interpreter), self._program, self._line, str(os.getpid())]

    def _environment(self) -> dict[str, str]:
        paths = [str(PROGRAMS), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
        return {**super()._environment(), "PYTHONPATH": os.pathsep.join(paths)}

    def begin(self) -> None:
        """Start, and wait until the processes have met; anew with other ports where one was taken meanwhile.

        Raises:
            ProcessError: a process ended or does not answer.
        """
        for number in range(_STARTS):
            self._line = self._assignment.to_json()  # the ports are the same for all ranks
            self.start()
            try:
                self.ready()
                return
            except ProcessError as error:
                if "ModuleNotFoundError" in str(error) or "ImportError" in str(error):
                    raise ProcessError(f"{error}; make its environment anew with: make frameworks") from None
                if number == _STARTS - 1 or not any(words in str(error).lower() for words in _IN_USE):
                    raise
                self.close()
                self._processes.clear()
                self._errors.clear()
