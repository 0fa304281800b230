"""The world: W processes, this one's rank, and the few things they say to each other."""

from __future__ import annotations

import os
import pickle
import zlib
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch.distributed import PrefixStore  # type: ignore[attr-defined]
from torch.distributed.rendezvous import rendezvous as dist_rendezvous

from batchscale.comm.world.diagnosis import Doing, diagnose, first_line, tell
from batchscale.comm.world.gloo import BATCH, mesh_for, schedule_gloo_threads
from batchscale.comm.world.place import this_host, this_process
from batchscale.comm.world.rendezvous import agree_on_name
from batchscale.errors import ProcessError
from batchscale.system.launcher import by_agent, described, way_out, world_told
from batchscale.words import shown

T = TypeVar("T")
_SERVERS: dict[tuple[str, str], Any] = {}  # rank 0's stores live as long as it: another rank may already be at its
# next run while rank 0 still leaves this one, and would find a store that closes under its feet


class Pending:
    """A reduction under way: ``wait()`` returns when the tensor holds the sum."""

    def __init__(self, world: World, work: dist.Work, what: str, brought: str, call: int) -> None:
        self._world, self._work, self._doing = world, work, (what, brought, call)

    def wait(self) -> None:
        """Block until the sum is there; ProcessError names a rank that died, hangs or brought something else."""
        self._world._guard(lambda: cast(None, self._work.wait()), *self._doing)


class World:
    """W processes that reduce together; a world of one needs no process group.

    Args:
        rank: of this process.
        size: W.
        device: where its tensors live.
        timeout_seconds: a peer silent for this long has hung.

    Attributes:
        hosts: the ranks of every host, in rank order; hosts in the order of their first ranks.
        group: the process group; None for the default one.
    """

    def __init__(
        self,
        rank: int = 0,
        size: int = 1,
        device: torch.device | None = None,
        timeout_seconds: float = 60.0,
        store: Any = None,
    ) -> None:
        self.rank, self.size = rank, size
        self.device = device or torch.device("cpu")
        self.timeout_seconds = timeout_seconds
        self._store = store
        self._objects: Any = None
        self._job: Any = None
        self.group: Any = None
        self._owns_group = True
        self.hosts = [list(range(size))]
        self._calls = 0
        self._last = ("", "")
        self._met: set[tuple[tuple[str, str], tuple[str, str]]] = set()

    @classmethod
    def connect(cls, device: torch.device, timeout_seconds: float) -> World:
        """The world that the launcher's environment describes (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT).

        Args:
            device: cpu (Gloo) or cuda (NCCL, with Gloo for objects).
            timeout_seconds: bound on every exchange.

        Raises:
            UsageError: only a part of these variables is set.
            ProcessError: not everyone arrived in time.
        """
        rank, size = world_told()
        # One process under an agent joins the store all the same: it tells of earlier attempts (``job_knows``).
        if size == 1 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
            return cls(rank, size, device, timeout_seconds)
        timeout = timedelta(seconds=timeout_seconds)
        world = cls(rank, size, device, timeout_seconds)
        try:
            world._guard(lambda: world._connect(timeout), "connecting")
        except ProcessError as error:
            if by_agent():
                raise
            raise ProcessError(f"{error}; as told by {described()}: {way_out()}") from error
        return world

    def _connect(self, timeout: timedelta) -> None:
        store, _, _ = next(dist_rendezvous("env://", self.rank, self.size, timeout=timeout))
        if self.rank == 0:
            _SERVERS[os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]] = store
        self._job = PrefixStore("batchscale", store)
        if self.size > 1:
            self._store = PrefixStore(agree_on_name(self._job, self.rank, self.size, self.timeout_seconds), store)
            with mesh_for(self.size):
                self._start(self._store, timeout)

    def _start(self, store: Any, timeout: timedelta) -> None:
        backend = "nccl" if self.device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=store, rank=self.rank, world_size=self.size, timeout=timeout)
        self._get_to_know(timeout)

    @classmethod
    def of_process_group(cls, device: torch.device, timeout_seconds: float) -> World:
        """The ranks of torch.distributed's default process group, which someone else has made, in a group of our own.

        Args:
            device: where the tensors live.
            timeout_seconds: bound on every exchange.

        Raises:
            ProcessError: there is no process group, or not everyone called this in time.
        """
        if not dist.is_initialized():
            raise ProcessError("no process group: call torch.distributed.init_process_group first")
        world = cls(dist.get_rank(), dist.get_world_size(), device, timeout_seconds)
        world._owns_group = False
        timeout = timedelta(seconds=timeout_seconds)
        if world.size > 1:
            with mesh_for(world.size):
                world.group = dist.new_group(timeout=timeout)  # its messages and its time-out are nobody else's
                name = f"batchscale/{world.group.group_name}"
                world._store = PrefixStore(name, dist.distributed_c10d._get_default_store())
                world._guard(lambda: world._get_to_know(timeout), "connecting")
        return world

    def _get_to_know(self, timeout: timedelta) -> None:
        """A group for objects, Gloo's threads, and who shares a host with whom."""
        on_gloo = dist.get_backend(self.group) == "gloo"
        group = dist.group.WORLD if self.group is None else self.group
        # By Gloo in any case: NCCL has no tags, by which `_meet` and a hang-up tell messages apart.
        self._objects = group if on_gloo else dist.new_group(backend="gloo", timeout=timeout)
        schedule_gloo_threads(BATCH)
        hosts: dict[str, list[int]] = {}
        for rank, host in enumerate(self.gather(this_host(), "finding hosts")):
            hosts.setdefault(host, []).append(rank)
        self.hosts = list(hosts.values())

    def tell_alive(self, what: str, timed_out: bool) -> None:
        """Let the others learn that this rank is not the silent one, when they ask who is."""
        tell(self._store, self.rank, Doing(what, timed_out=timed_out))

    @property
    def local_ranks(self) -> list[int]:
        """The ranks of this host, in order."""
        return next(ranks for ranks in self.hosts if self.rank in ranks)

    @property
    def local_rank(self) -> int:
        """This rank's place among those of its host."""
        return self.local_ranks.index(self.rank)

    def _guard(self, exchange: Callable[[], T], what: str, brought: str = "", call: int = 0) -> T:
        """Run an exchange; when it fails, find out which rank is silent or in something else, and say so."""
        try:
            return exchange()
        except RuntimeError as error:
            reason = first_line(error)
            doing = Doing(what, brought, call, "imed out" in reason)  # backends write it with T and with t
            cause = diagnose(self._store, self._objects, self.rank, self.size, self.timeout_seconds, doing, reason)
            raise ProcessError(f"{what} (rank {self.rank} of {self.size}): {cause}") from error

    def _meet(self, what: str, brought: str) -> None:
        """Before a sum by the backend that has not followed the one before it yet: be sure that all are in the same.

        Gloo ends the process, or sums rubbish, where lengths or types differ. So whoever comes to something new
        meets the others first, by messages whose tag names it; who is in something else never gets one. Repeats
        cost nothing. Rounds: ceil(log2 W) of one number (dissemination barrier).
        """
        self._calls += 1
        follows = (self._last, (what, brought))
        self._last = (what, brought)
        if follows in self._met:
            return
        tag, distance = tag_of(what, brought, self._calls), 1
        while distance < self.size:
            ahead, behind = (self.rank + distance) % self.size, (self.rank - distance) % self.size
            received = dist.irecv(torch.empty(1), group=self._objects, tag=tag, group_src=behind)
            sent = dist.isend(torch.empty(1), group=self._objects, tag=tag, group_dst=ahead)
            cast(dist.Work, received).wait()
            cast(dist.Work, sent).wait()
            distance *= 2  # Hensgen, Finkel and Manber 1988: after each round twice as many ranks are known to be here
        self._met.add(follows)

    def all_reduce(self, tensor: torch.Tensor, what: str = "all-reduce") -> None:
        """tensor <- sum over all processes of tensor."""
        if self.size > 1:
            self.start_all_reduce(tensor, what).wait()

    def start_all_reduce(self, tensor: torch.Tensor, what: str = "all-reduce") -> Pending:
        """Begin tensor <- sum over all processes; the same order of calls on every process."""
        return self._start_reduction(tensor, dist.ReduceOp.SUM, what)

    def _start_reduction(self, tensor: torch.Tensor, operation: Any, what: str) -> Pending:
        brought = brought_by(tensor)

        def start() -> dist.Work:
            self._meet(what, brought)
            return dist.all_reduce(tensor, op=operation, group=self.group, async_op=True)

        work = self._guard(start, what, brought, self._calls + 1)  # the number that `_meet` is about to give it
        return Pending(self, work, what, brought, self._calls)

    def all_reduce_max(self, tensor: torch.Tensor, what: str = "all-reduce of maxima") -> None:
        """tensor <- elementwise maximum over all processes (finite values only)."""
        if self.size > 1:
            self._start_reduction(tensor, dist.ReduceOp.MAX, what).wait()

    def gather(self, value: T, what: str = "gather") -> list[T]:
        """Everyone's value, in rank order, on every process."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        self._guard(lambda: dist.all_gather_object(values, value, group=self._objects), what)
        return values

    def gather_at_zero(self, value: T, what: str = "gather") -> list[T]:
        """Everyone's value, in rank order, on rank 0 alone; [] on the others."""
        if self.size == 1:
            return [value]
        values: list[Any] | None = [None] * self.size if self.rank == 0 else None
        self._guard(lambda: dist.gather_object(value, values, group=self._objects, group_dst=0), what)
        return values or []

    def from_rank_zero(self, make: Callable[[], T], what: str = "broadcast") -> T:
        """Rank 0 makes a value, everyone gets it; an error of rank 0 is raised everywhere."""
        value_and_error: list[Any] = [None, None]
        if self.rank == 0:
            try:
                value_and_error = [make(), None]
            except Exception as error:
                value_and_error = [None, _sendable(error)]
        if self.size > 1:
            self._guard(lambda: dist.broadcast_object_list(value_and_error, src=0, group=self._objects), what)
        value, failure = value_and_error
        if failure is not None:
            raise failure
        return cast(T, value)

    def job_knows(self, fact: str) -> bool:
        """Whether an earlier attempt of this elastic job (the agents' store lives as long as it) has told this."""
        key = _fact(fact)
        return self._job is not None and self._job.check([key]) and self._job.get(key).decode() != this_process()

    def tell_job(self, fact: str) -> None:
        """Let later attempts of this elastic job know."""
        if self._job is not None:
            self._job.set(_fact(fact), this_process())

    def close(self, wait: bool = True) -> None:
        """Leave the process group.

        Args:
            wait: for the others to be here too, after a run that ended well on all: a rank whose peers have left
                while it tears its threads down was seen to abort.
        """
        if self.size > 1 and self._owns_group and dist.is_initialized():
            if wait:
                self._guard(dist.barrier, "waiting for the others to end")
            self._objects = self._store = self._job = None  # the group's threads end with its last reference
            dist.destroy_process_group()


def _fact(fact: str) -> str:
    """The key of a fact; a store's are UTF-8, and a folder's name may be none."""
    return f"fact/{shown(fact)}"


def brought_by(tensor: torch.Tensor) -> str:
    """A tensor's length and type in words."""
    return f"{tensor.numel()} x {str(tensor.dtype).removeprefix('torch.')}"


def tag_of(what: str, brought: str, call: int) -> int:
    """A message's tag that only the same call with the same length and type has (31 bits of a hash)."""
    return zlib.crc32(f"{what}/{brought}/{call}".encode()) >> 1


def _sendable(error: Exception) -> Exception:
    """The error, or its text where it cannot be pickled: the others must not wait for it in vain."""
    try:
        pickle.dumps(error)
    except Exception:
        return ProcessError(f"rank 0: {type(error).__name__}: {error}")
    return error
