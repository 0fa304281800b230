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
from batchscale.comm.world.device import CudaQueue, Device, DeviceQueue, check_devices, describe, sharing
from batchscale.comm.world.exchanges import Exchanges
from batchscale.comm.world.gloo import BATCH, mesh_for, schedule_gloo_threads
from batchscale.comm.world.meeting import JOB, check_address, join_store, remedy
from batchscale.comm.world.messages import brought_by, fact_key, outcome
from batchscale.comm.world.patience import Patience
from batchscale.comm.world.pending import Pending
from batchscale.comm.world.place import ranks_by_host, this_host, this_process
from batchscale.comm.world.rendezvous import agree_on_name
from batchscale.errors import ProcessError
from batchscale.system.launcher import described, world_told
from batchscale.system.notes import note

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
        exchanges: with the other ranks.
        by_watchdog: NCCL's own watchdog ends this process: nobody may wait with a bound.
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
        queue = CudaQueue(self.device) if self.device.type == "cuda" else None
        self.exchanges = Exchanges(rank, size, Patience(timeout_seconds), queue, self._recorded, store)
        self._job: Any = None
        self.group: Any = None
        self._owns_group = self.by_watchdog = False
        self.hosts = [list(range(size))]
        self.devices: list[Device] = []

    @property
    def patience(self) -> Patience:
        """How long this rank waits for the others."""
        return self.exchanges.patience

    @property
    def queue(self) -> DeviceQueue | None:
        """Of its GPU; None on the CPU."""
        return self.exchanges.queue

    def _recorded(self) -> str:
        return nccl.recorded(self.rank, self.group, self.device)

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
            device: cpu (Gloo) or cuda (NCCL, with Gloo for objects; Gloo alone where ranks share a GPU).
            timeout_seconds: bound on every exchange.
            startup_seconds: the bound of connecting, and until ``started`` where it is longer; None for the same.

        Raises:
            UsageError: variables that are missing or wrong; devices that cannot reduce; what ``tell_mistake`` told.
            ProcessError: not everyone arrived in time.
        """
        rank, size = world_told()
        world = cls(rank, size, device, timeout_seconds)
        world.exchanges.patience = Patience(timeout_seconds, startup_seconds)
        # One process under an agent joins the store all the same: it tells of earlier attempts (``job_knows``).
        if size == 1 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
            return world
        check_address()
        try:
            with world.patience.noted(f"still waiting for the other processes to connect ({described()})"):
                world.exchanges.guard(lambda: world._connect(startup_seconds or timeout_seconds), "connecting")
        except BaseException as error:
            world.close(wait=False)
            way_on = remedy(error) if isinstance(error, ProcessError) else ""
            if way_on and isinstance(error, ProcessError):
                raise ProcessError(f"{error}; {way_on}", leaderless=error.leaderless) from error
            raise
        return world

    def _connect(self, seconds: float) -> None:
        store = join_store(self.rank, self.size, seconds)
        if self.rank == 0:
            _SERVERS[os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]] = store
        self._job = PrefixStore(JOB, store)
        if self.size > 1:
            name = agree_on_name(self._job, self.rank, self.size, seconds)
            self.exchanges.store = PrefixStore(name, store)
            with mesh_for(self.size):
                self._start()

    def _start(self) -> None:
        """Gloo first, on GPUs, too: which devices there are is told by it, before NCCL hangs on the wrong ones."""
        timeout = timedelta(seconds=self.patience.group_seconds)
        store = self.exchanges.store
        dist.init_process_group("gloo", store=store, rank=self.rank, world_size=self.size, timeout=timeout)
        self._owns_group = True
        self._get_to_know(timeout)
        self.exchanges.watch()
        check_devices(self.devices)
        if self.device.type == "cuda" and not sharing(self.devices):
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
        world.by_watchdog = True
        if world.size > 1:
            with mesh_for(world.size):
                world.exchanges.guard(world._beside_default_group, "connecting")
        return world

    def _beside_default_group(self) -> None:
        timeout = timedelta(seconds=self.timeout_seconds)
        store: Any = PrefixStore("batchscale", dist.distributed_c10d._get_default_store())
        # Its messages and its time-out are nobody else's; nor its keys: an elastic job's next attempt may make a group
        # of the same name on the same store.
        name = agree_on_name(store, self.rank, self.size, self.timeout_seconds)
        self.exchanges.store = PrefixStore(name, store)
        self.group = nccl.new_group(self.device, timeout, nccl.backend_for(self.device), by_watchdog=True)
        self._get_to_know(timeout)

    def _get_to_know(self, timeout: timedelta) -> None:
        """A group for objects, Gloo's threads, and who shares a host with whom."""
        on_gloo = dist.get_backend(self.group) == "gloo"
        group = dist.group.WORLD if self.group is None else self.group
        # By Gloo in any case: NCCL has no tags, by which a meeting and a hang-up tell messages apart.
        self.exchanges.objects = group if on_gloo else dist.new_group(backend="gloo", timeout=timeout)
        schedule_gloo_threads(BATCH)
        places = self.gather((this_host(), describe(self.device)), "finding hosts")
        self.hosts, self.devices = ranks_by_host([host for host, _ in places]), [device for _, device in places]
        self.patience.by(self.exchanges.store)

    def tell_alive(self, what: str, timed_out: bool) -> None:
        """Let the others learn that this rank is not the silent one, when they ask who is."""
        self.exchanges.tell(what, timed_out)

    @property
    def local_ranks(self) -> list[int]:
        """The ranks of this host, in order."""
        return next(ranks for ranks in self.hosts if self.rank in ranks)

    @property
    def local_rank(self) -> int:
        """This rank's place among those of its host."""
        return self.local_ranks.index(self.rank)

    def all_reduce(self, tensor: torch.Tensor, what: str = "all-reduce") -> None:
        """tensor <- sum over all processes of tensor."""
        if self.size > 1:
            self._reduce(tensor, dist.ReduceOp.SUM, what)

    def start_all_reduce(self, tensor: torch.Tensor, what: str = "all-reduce") -> Pending:
        """Begin tensor <- sum over all processes; the same order of calls on every process."""
        return self._start_reduction(tensor, dist.ReduceOp.SUM, what)

    def _start_reduction(self, tensor: torch.Tensor, operation: Any, what: str) -> Pending:
        brought, exchanges = brought_by(tensor), self.exchanges

        def start() -> dist.Work:
            exchanges.meet(what, brought)
            return dist.all_reduce(tensor, op=operation, group=self.group, async_op=True)

        work = exchanges.guard(start, what, brought, exchanges.calls + 1)  # the number that `meet` is about to give it
        return Pending(exchanges, work, what, brought, exchanges.calls)

    def _reduce(self, tensor: torch.Tensor, operation: Any, what: str) -> None:
        self._start_reduction(tensor, operation, what).wait()
        self.exchanges.wait_for_device(what)

    def all_reduce_max(self, tensor: torch.Tensor, what: str = "all-reduce of maxima") -> None:
        """tensor <- elementwise maximum over all processes (finite values only)."""
        if self.size > 1:
            self._reduce(tensor, dist.ReduceOp.MAX, what)

    def gather(self, value: T, what: str = "gather") -> list[T]:
        """Everyone's value, in rank order, on every process."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        self.exchanges.guard(lambda: dist.all_gather_object(values, value, group=self.exchanges.objects), what)
        return values

    def gather_at_zero(self, value: T, what: str = "gather") -> list[T]:
        """Everyone's value, in rank order, on rank 0 alone; [] on the others."""
        if self.size == 1:
            return [value]
        values: list[Any] | None = [None] * self.size if self.rank == 0 else None
        self.exchanges.guard(lambda: dist.gather_object(value, values, group=self.exchanges.objects, group_dst=0), what)
        return values or []

    def from_rank_zero(self, make: Callable[[], T], what: str = "broadcast") -> T:
        """Rank 0 makes a value, everyone gets it; an error of rank 0 is raised everywhere."""
        value_and_error: list[Any] = [None, None]
        if self.rank == 0:
            with self.patience.busy():
                value_and_error = outcome(make)
        if self.size > 1:
            self.exchanges.guard(
                lambda: dist.broadcast_object_list(value_and_error, src=0, group=self.exchanges.objects), what
            )
        value, failure = value_and_error
        if failure is not None:
            raise failure
        return cast(T, value)

    def job_knows(self, fact: str) -> bool:
        """Whether an earlier attempt of this elastic job (the agents' store lives as long as it) has told this."""
        process = this_process()
        # One request, which sets nothing: where nobody has told the fact, the answer is what was expected.
        told_by = self._job.compare_set(fact_key(fact), process, process).decode() if self._job is not None else ""
        return told_by not in ("", process)

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
        if not (self._owns_group and dist.is_initialized()):
            return
        ended_well = False
        try:
            ended_well = wait and self._others_are_here()
        finally:
            if self.queue is not None and not ended_well:
                self.patience.tell_failed()
            self.exchanges.close()
            self._job = None
            if self.queue is not None and not ended_well:
                nccl.abandon_groups()
            else:
                dist.destroy_process_group()

    def _others_are_here(self) -> bool:
        """Whether they came; a rank that is lost after the run's end takes nothing from this rank's result."""
        try:
            self.exchanges.guard(dist.barrier, "waiting for the others to end")
        except ProcessError as error:
            note(f"{error}; this process had ended well")
            return False
        return True
