"""The all-reduces of a run: every tensor by the algorithm that is chosen for its size.

Backends behind one seam, ``start(tensor, what).wait()``:

- ``builtin``: the process group's own, asynchronous in its threads;
- ``shared_memory``, and ``three_phase`` on hosts that can: no thread, moves on whenever ``progress`` is called;
- every other schedule: point to point, in order, on one thread beside the training; on GPUs torus and hierarchical
  by the backend's collectives in sub-groups, on a side stream, made when they are named.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch

from batchscale.comm.collectives import COLLECTIVES, make
from batchscale.comm.collectives.point_to_point import PointToPoint
from batchscale.comm.collectives.three_phase import between_hosts
from batchscale.comm.engines import BUILTIN as BUILTIN
from batchscale.comm.engines import DONE, Builtin, Engine, OnThread, in_subgroups
from batchscale.comm.engines import Reduction as Reduction
from batchscale.comm.shared.all_reduce import DTYPES, Between, SharedMemoryAllReduce
from batchscale.comm.shared.mapping import NoSharedMemory
from batchscale.comm.world.world import World
from batchscale.errors import UsageError

SHARED_MEMORY, THREE_PHASE = "shared_memory", "three_phase"


@dataclass(frozen=True)
class Choice:
    """Which algorithm for which size.

    Args:
        limits: (bytes up to which, algorithm), rising; the last one has no limit, whatever it says.
        why: in words, for the record.
    """

    limits: tuple[tuple[int, str], ...]
    why: str = ""

    def algorithm(self, tensor_bytes: int) -> str:
        """The algorithm for a tensor of so many bytes."""
        return next((name for limit, name in self.limits if tensor_bytes <= limit), self.limits[-1][1])


class Reducer:
    """All-reduces among the processes of a world.

    Args:
        world: the processes; all of them make one, and call it in the same order.
        choice: of the algorithms; None for shared memory where there is some, else the backend; ``use`` changes it.
        torus: (X, Y) of the torus, X * Y = W; None to choose.
        between: the algorithm between hosts of ``three_phase``.

    Attributes:
        notes: what a user should know, such as why there is no shared memory.

    Examples:
        >>> reducer = batchscale.Reducer(batchscale.World())  # a world of one; World.connect(...) below a launcher
        >>> gradient = torch.tensor([1.0, 2.0])
        >>> reducer.all_reduce(gradient)
        >>> gradient
        tensor([1., 2.])
    """

    def __init__(
        self,
        world: World,
        choice: Choice | None = None,
        torus: tuple[int, int] | None = None,
        between: str = "auto",
    ) -> None:
        self.world = world
        self.notes: list[str] = []
        self._torus, self._between = torus, between
        self._engines: dict[str, Engine] = {BUILTIN: Builtin(world)}
        self._memory: SharedMemoryAllReduce | None = None
        self._thread: ThreadPoolExecutor | None = None
        if world.size > 1 and world.device.type == "cpu":
            self._share_memory()
        best = next((name for name in (SHARED_MEMORY, THREE_PHASE) if name in self._engines), BUILTIN)
        self.choice = choice or Choice(((0, best),), "the default")

    def _share_memory(self) -> None:
        if all(len(ranks) == 1 for ranks in self.world.hosts):
            return
        if len(self.world.hosts) > 1 and not self._three_phase_fits():
            return
        try:
            self._memory = SharedMemoryAllReduce(self.world, self._between_hosts())
        except NoSharedMemory as error:
            self.notes.append(f"no shared memory: {error}; processes talk through the backend")
            return
        if len(self.world.hosts) == 1:
            self._engines[SHARED_MEMORY] = self._memory
        else:  # waits for other hosts, so not beside the training on its thread
            memory = self._memory
            self._engines[THREE_PHASE] = OnThread(self.submit, lambda *summed: memory.start(*summed).wait())

    def _between_hosts(self) -> Between | None:
        hosts, lane = self.world.hosts, self.world.local_rank
        if len(hosts) == 1 or lane >= min(map(len, hosts)):
            return None
        collective = between_hosts(self._between, len(hosts))
        return PointToPoint(self.world, collective, ranks=[ranks[lane] for ranks in hosts]).all_reduce

    def _three_phase_fits(self) -> bool:
        """Whether ``between`` is made for so many hosts; where not, asking for three_phase says why."""
        try:
            make(THREE_PHASE, self.world.size, self.world.hosts, between=self._between)
        except UsageError:
            return False
        return True

    def available(self) -> list[str]:
        """The algorithms of the table that this world can run, the backend's own first."""
        missing = self.missing()
        return [name for name in ALGORITHMS if name not in missing]

    def missing(self) -> dict[str, str]:
        """The algorithms of the table that this world cannot run, and why."""
        reasons = {}
        for name in ALGORITHMS:
            try:
                if name not in self._engines:
                    self._maker(name)
            except UsageError as error:
                reasons[name] = str(error)
        return reasons

    def zeros(self, length: int, dtype: torch.dtype) -> torch.Tensor:
        """A tensor (length,) on the world's device, in memory shared by a host's processes where that can be."""
        if self._memory is not None:
            try:
                return self._memory.zeros(length, dtype)
            except NoSharedMemory as error:
                self.notes.append(f"gradients are not in shared memory: {error}; they are copied there and back")
        return torch.zeros(length, dtype=dtype, device=self.world.device)

    def use(self, choice: Choice) -> None:
        """From now on reduce by this choice.

        Raises:
            UsageError: an algorithm that this world cannot run.
        """
        for _, name in choice.limits:
            self._engine(name)
        self.choice = choice

    def start(
        self,
        tensor: torch.Tensor,
        what: str = "all-reduce",
        algorithm: str | None = None,
        wire: torch.dtype | None = None,
    ) -> Reduction:
        """Begin tensor <- sum over all processes.

        Args:
            tensor: contiguous; on the CPU, types other than float16, bfloat16, 32, 64 and int64 go through the backend.
            what: is summed, for errors.
            algorithm: to use, whatever is chosen.
            wire: type that a float32 tensor is sent in, float16 or bfloat16; None for its own. Sums are made in
                float32, but for those of the backend.

        Raises:
            ValueError: a wire for another tensor.
        """
        if wire is not None and (tensor.dtype != torch.float32 or wire not in (torch.float16, torch.bfloat16)):
            raise ValueError(f"wire={wire}: float16 or bfloat16, for tensors of float32, not of {tensor.dtype}")
        if self.world.size == 1:
            return DONE
        name = algorithm or self.choice.algorithm(tensor.nbytes)
        if self.world.device.type == "cpu" and tensor.dtype not in DTYPES:  # none of ours adds these
            name = BUILTIN
        return self._engine(name).start(tensor, what, wire)

    def all_reduce(
        self,
        tensor: torch.Tensor,
        what: str = "all-reduce",
        algorithm: str | None = None,
        wire: torch.dtype | None = None,
    ) -> None:
        """tensor <- sum over all processes of tensor; see ``start``."""
        self.start(tensor, what, algorithm, wire).wait()
        self.world.exchanges.wait_for_device(what)

    def progress(self) -> None:
        """Let reductions under way move on; never blocks."""
        if self._memory is not None and len(self.world.hosts) == 1:
            self._memory.progress()

    def _engine(self, name: str) -> Engine:
        if name not in self._engines:
            self._engines[name] = self._maker(name)()
        return self._engines[name]

    def _maker(self, name: str) -> Callable[[], Engine]:
        """What makes the engine of a name, if this world can run it: an engine may cost process groups."""
        world = self.world
        if name == SHARED_MEMORY and len(world.hosts) > 1:
            raise UsageError(
                f"execution.aggregation.algorithm={name}: {len(world.hosts)} hosts share no memory; "
                f"use three_phase, or auto"
            )
        if name == SHARED_MEMORY:
            raise UsageError(f"execution.aggregation.algorithm={name}: {self.notes[0] if self.notes else _NO_MEMORY}")
        collective = make(name, world.size, world.hosts, torus=self._torus, between=self._between)
        if world.device.type == "cuda":
            return in_subgroups(world, collective)
        all_reduce = PointToPoint(world, collective).all_reduce
        return lambda: OnThread(self.submit, all_reduce)

    def submit(self, reduce: Callable[[], None]) -> Future[None]:
        """Run a blocking reduction after those before it, on the thread beside the training."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "batchscale-reduce")  # one: the same order on every process
        return self._thread.submit(reduce)

    def close(self) -> None:
        """Give thread and memory back."""
        if self._thread is not None:
            self._thread.shutdown(wait=False, cancel_futures=True)  # a peer may hang: what waits for it is left
        if self._memory is not None:
            self._memory.close()


class _Algorithms(Sequence[str]):
    """Looked up at every use, as plugins add to them."""

    def _names(self) -> tuple[str, ...]:
        return (BUILTIN, SHARED_MEMORY, *COLLECTIVES)

    def __getitem__(self, place: Any) -> Any:
        return self._names()[place]

    def __len__(self) -> int:
        return len(self._names())


ALGORITHMS: Sequence[str] = _Algorithms()
"""Every all-reduce that a recipe may name."""


_NO_MEMORY = "is made for processes of one host on the CPU; use builtin, or auto"
