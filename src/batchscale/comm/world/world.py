"""The world: W processes, this one's rank, and the few things they say to each other."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch.distributed import PrefixStore  # type: ignore[attr-defined]

from batchscale.comm.world import nccl
from batchscale.comm.world.device import CudaQueue, Device, DeviceQueue, Event, check_devices, describe, wait_on_host
from batchscale.comm.world.diagnosis import Doing, diagnose, first_line, tell
from batchscale.comm.world.gloo import BATCH, hang_up, mesh_for, schedule_gloo_threads
from batchscale.comm.world.meeting import JOB, check_address, join_store, remedy
from batchscale.comm.world.messages import brought_by, fact_key, meet, outcome, tag_of
from batchscale.comm.world.patience import Patience, Watch
from batchscale.comm.world.pending import Pending
from batchscale.comm.world.place import ranks_by_host, this_host, this_process
from batchscale.comm.world.rendezvous import agree_on_name
from batchscale.errors import ProcessError
from batchscale.system.launcher import described, world_told

T = TypeVar("T")
_SERVERS: dict[tuple[str, str], Any] = {}  # rank 0's stores live as long as it: another rank may already be at its
# next run while rank 0 still leaves this one, and would find a store that closes under its feet


class World:
    """W processes that reduce together; a world of one needs no process group.

    Args:
        rank: of this process.
        size: W.
        device: where its tensors live.
        timeout_seconds: a peer silent for this long has hung.

    Attributes:
        hosts: the ranks of every host, in rank order; hosts in the order of their first ranks.
        devices: of every rank.
        group: the process group of the reductions; None for the default one.
        patience: how long this rank waits for the others.
        queue: of its GPU; None on the CPU.
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
        self.device = torch.device(device or "cpu")  # a name will do
        self.patience = Patience(timeout_seconds)
        self.queue: DeviceQueue | None = CudaQueue(self.device) if self.device.type == "cuda" else None
        self._watch = Watch()
        self._store = store
        self._objects: Any = None
        self._job: Any = None
        self.group: Any = None
        self._owns_group = True
        self.hosts = [list(range(size))]
        self.devices: list[Device] = []
        self._calls = 0
        self._last = ("", "")
        self._met: set[tuple[tuple[str, str], tuple[str, str]]] = set()

    @property
    def timeout_seconds(self) -> float:
        """A peer silent for this long has hung, once the first step is done."""
        return self.patience.timeout_seconds

    @timeout_seconds.setter
    def timeout_seconds(self, seconds: float) -> None:
        self.patience.timeout_seconds = seconds

    @classmethod
    def connect(cls, device: torch.device, timeout_seconds: float, startup_seconds: float | None = None) -> World:
        """The world that the launcher's environment describes (RANK, WORLD_SIZE, ..., or srun's, mpirun's).

        Args:
            device: cpu (Gloo) or cuda (NCCL, with Gloo for objects).
            timeout_seconds: bound on every exchange.
            startup_seconds: the bound of connecting, and until ``started`` where it is longer; None for the same.

        Raises:
            UsageError: variables that are missing or wrong; devices that cannot reduce; what ``tell_mistake`` told.
            ProcessError: not everyone arrived in time.
        """
        rank, size = world_told()
        world = cls(rank, size, device, timeout_seconds)
        world.patience = Patience(timeout_seconds, startup_seconds)
        # One process under an agent joins the store all the same: it tells of earlier attempts (``job_knows``).
        if size == 1 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
            return world
        check_address()
        try:
            with world.patience.noted(f"still waiting for the other processes to connect ({described()})"):
                world._guard(lambda: world._connect(startup_seconds or timeout_seconds), "connecting")
        except ProcessError as error:
            if way_on := remedy(error):
                raise ProcessError(f"{error}; {way_on}", leaderless=error.leaderless) from error
            raise
        return world

    def _connect(self, seconds: float) -> None:
        store = join_store(self.rank, self.size, seconds)
        if self.rank == 0:
            _SERVERS[os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]] = store
        self._job = PrefixStore(JOB, store)
        if self.size > 1:
            self._store = PrefixStore(agree_on_name(self._job, self.rank, self.size, seconds), store)
            with mesh_for(self.size):
                self._start()

    def _start(self) -> None:
        """Gloo first, on GPUs, too: which devices there are is told by it, before NCCL hangs on the wrong ones."""
        timeout = timedelta(seconds=self.patience.group_seconds)
        dist.init_process_group("gloo", store=self._store, rank=self.rank, world_size=self.size, timeout=timeout)
        self._get_to_know(timeout)
        if self.patience.changes:
            self._watch.start(self.patience, lambda: hang_up(self._objects, self.rank))
        check_devices(self.devices, self.hosts)
        if self.device.type == "cuda":
            self.group = nccl.make_group(self.device, self.patience.longest_seconds)

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
            own = nccl.behind(timeout) if dist.get_backend() == "nccl" else timeout
            with mesh_for(world.size):
                world.group = dist.new_group(timeout=own)  # its messages and its time-out are nobody else's
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
        places = self.gather((this_host(), describe(self.device)), "finding hosts")
        self.hosts, self.devices = ranks_by_host([host for host, _ in places]), [device for _, device in places]
        self.patience.by(self._store)

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
        token = self._watch.begin()
        try:
            return exchange()
        except RuntimeError as error:
            reason = first_line(error)
            overdue = self._watch.end(token) or "imed out" in reason  # backends write it with T and with t
            if self.queue is not None:
                self.patience.tell_failed()
            doing, seconds = Doing(what, brought, call, overdue), self.patience.seconds
            cause, lost = diagnose(self._store, self._objects, self.rank, self.size, seconds, doing, reason)
            file = nccl.recorded(self.rank) if self.queue is not None else ""
            sentence = f"{what} (rank {self.rank} of {self.size}): {cause}{file}"
            raise ProcessError(sentence, leaderless=lost) from error
        finally:
            self._watch.end(token)

    def wait_for_device(self, event: Event, what: str) -> None:
        """Block until the device has come to an event; ProcessError names who keeps it from it."""
        self._guard(lambda: wait_on_host(event, self.patience), what)

    def _meet(self, what: str, brought: str) -> None:
        """Before a sum by the backend that has not followed the one before it yet: be sure that all are in the same.

        Gloo ends the process, or sums rubbish, where lengths or types differ. So whoever comes to something new
        meets the others first, by messages whose tag names it; who is in something else never gets one. Repeats
        cost nothing.
        """
        self._calls += 1
        follows = (self._last, (what, brought))
        self._last = (what, brought)
        if follows in self._met:
            return
        meet(self._objects, self.rank, self.size, tag_of(what, brought, self._calls))
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
            with self.patience.busy():
                value_and_error = outcome(make)
        if self.size > 1:
            self._guard(lambda: dist.broadcast_object_list(value_and_error, src=0, group=self._objects), what)
        value, failure = value_and_error
        if failure is not None:
            raise failure
        return cast(T, value)

    def job_knows(self, fact: str) -> bool:
        """Whether an earlier attempt of this elastic job (the agents' store lives as long as it) has told this."""
        key = fact_key(fact)
        return self._job is not None and self._job.check([key]) and self._job.get(key).decode() != this_process()

    def tell_job(self, fact: str) -> None:
        """Let later attempts of this elastic job know."""
        if self._job is not None:
            self._job.set(fact_key(fact), this_process())

    def close(self, wait: bool = True) -> None:
        """Leave the process group.

        Args:
            wait: for the others to be here too, after a run that ended well on all: a rank whose peers have left
                while it tears its threads down was seen to abort.
        """
        if self.size > 1 and self._owns_group and dist.is_initialized():
            if wait:
                self._guard(dist.barrier, "waiting for the others to end")
            elif self.queue is not None:
                self.patience.tell_failed()
            self._watch.close()
            self.patience.by(None)
            self._objects = self._store = self._job = None  # the group's threads end with its last reference
            if self.queue is not None and not wait:
                nccl.abandon_groups()
            else:
                dist.destroy_process_group()
