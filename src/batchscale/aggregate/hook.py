"""batchscale's all-reduces in anybody's DistributedDataParallel.

    bucket <- (1 / W) sum over processes of bucket

DDP cuts its gradients into buckets in the order that backward makes them, and calls the hook as each is full.
The reductions run on one thread beside the backward pass, in order, in a process group of the hook's own; on GPUs in
the backend's own streams (builtin) or on a side stream.

Cost: that of the algorithm; a bucket lies in DDP's own memory, so shared memory copies it in and out.

Source: Li et al. 2020, "PyTorch Distributed", section 3.2.3.
"""

from __future__ import annotations

import weakref
from concurrent.futures import ThreadPoolExecutor

import torch
import torch.distributed as dist
from torch.futures import Future
from torch.nn.parallel import DistributedDataParallel

from batchscale.aggregate.choice import choose
from batchscale.comm import Choice, Reducer, World
from batchscale.comm.world.device import DeviceQueue
from batchscale.comm.world.pending import Pending
from batchscale.errors import UsageError

_WHAT = "all-reduce of DDP's gradients"
_SHORT = (torch.float16, torch.bfloat16)
_DDP_FIRST_BUCKET_BYTES, _DDP_BUCKET_BYTES = 1 << 20, 25 << 20  # DDP's own defaults


class _Hook:
    """Handed to DDP, which calls ``reduce`` with each full bucket; reduces them in order on its thread."""

    def __init__(self, reducer: Reducer) -> None:
        self._reducer = reducer
        self._thread = ThreadPoolExecutor(1, "batchscale-ddp")

    def reduce(self, state, bucket):  # type: ignore[no-untyped-def]  # DDP wants no annotations that are text
        """A future of the bucket's mean over processes."""
        buffer: torch.Tensor = bucket.buffer()
        if self._reducer.world.queue is not None:
            return self._on_device(buffer, self._reducer.world.queue)
        future: Future[torch.Tensor] = Future()
        self._thread.submit(self._reduce, buffer, future)
        return future

    def _on_device(self, buffer: torch.Tensor, queue: DeviceQueue) -> Future[torch.Tensor]:
        """Given to the device and not waited for: backward goes on beside it."""
        self._begin(buffer)
        reduction = self._reducer.start(buffer, _WHAT)
        if isinstance(reduction, Pending):
            return reduction.future().then(lambda future: self._end(future.value()[0]))
        future: Future[torch.Tensor] = Future(devices=[buffer.device])
        with queue.aside():  # behind the reduction, which runs there; the future notes how far this stream is
            future.set_result(self._end(buffer))
        return future

    def _reduce(self, buffer: torch.Tensor, future: Future[torch.Tensor]) -> None:
        try:
            self._begin(buffer)
            self._reducer.all_reduce(buffer, _WHAT)
            future.set_result(self._end(buffer))
        except Exception as error:
            future.set_exception(error)  # type: ignore[arg-type]

    def _begin(self, buffer: torch.Tensor) -> None:
        if buffer.dtype in _SHORT:  # divided first, as by DDP: a sum may overflow
            buffer.div_(self._reducer.world.size)

    def _end(self, total: torch.Tensor) -> torch.Tensor:
        return total if total.dtype in _SHORT else total.div_(self._reducer.world.size)

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)
        self._reducer.close()


def ddp_hook(
    model: DistributedDataParallel,
    algorithm: str = "auto",
    *,
    torus: tuple[int, int] | None = None,
    between: str = "auto",
    timeout_seconds: float = 60.0,
) -> Choice:
    """Have a DistributedDataParallel model reduce its gradients by one of batchscale's all-reduces.

    Args:
        model: wrapped, on the default process group, before its first backward pass; all processes call this.
        algorithm: a name of ``batchscale.comm.ALGORITHMS``, or auto: the fastest, measured now.
        torus: (X, Y) for ``torus``, X * Y = W.
        between: the algorithm between hosts, for ``three_phase``.
        timeout_seconds: a peer silent for this long has hung. On GPUs nobody waits for a bucket, so none names that
            peer: NCCL's own watchdog ends the process, a minute after this time.

    Returns:
        The algorithms chosen for each size, and why.

    Raises:
        UsageError: an algorithm that these processes cannot run; a model on a process group of its own.
        ProcessError: a process died or hangs.

    Examples:
        >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)  # torchrun: "gloo" alone
        >>> model = DistributedDataParallel(torch.nn.Linear(4, 2))
        >>> choice = batchscale.ddp_hook(model)
        >>> model(torch.ones(1, 4)).sum().backward()  # reduced by the algorithm chosen for each size
        >>> dist.destroy_process_group()
    """
    if model.process_group is not dist.group.WORLD:
        raise UsageError("ddp_hook: the model is on a process group of its own; wrap it on the default one")
    parameters = [p for p in model.parameters() if p.requires_grad]
    world = World.of_process_group(parameters[0].device, timeout_seconds)
    reducer = Reducer(world, torus=torus, between=between)
    try:
        return _register(model, parameters, reducer, algorithm)
    except BaseException:
        reducer.close()
        raise


def _register(
    model: DistributedDataParallel, parameters: list[torch.nn.Parameter], reducer: Reducer, algorithm: str
) -> Choice:
    total = sum(p.nbytes for p in parameters)
    sizes = sorted({min(total, size) for size in (_DDP_FIRST_BUCKET_BYTES, _DDP_BUCKET_BYTES)})
    zeros = [torch.zeros(-(-size // 4), device=reducer.world.device) for size in sizes]
    reducer.use(choose(reducer, algorithm, zeros, {}))
    hook = _Hook(reducer)
    model.register_comm_hook(None, hook.reduce)
    weakref.finalize(model, hook.close)
    return reducer.choice
