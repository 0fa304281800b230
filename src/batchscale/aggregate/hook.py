"""batchscale's all-reduces in anybody's DistributedDataParallel.

    bucket <- (1 / W) sum over processes of bucket

DDP cuts its gradients into buckets in the order that backward makes them, and calls the hook as each is full.
The reductions run on one thread beside the backward pass, in order, in a process group of the hook's own (on GPUs: in
the order of backward's stream, so without overlap but for the backend's).

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
from batchscale.errors import UsageError

_FIRST_BUCKET_BYTES, _BUCKET_BYTES = 1 << 20, 25 << 20  # DDP's own defaults


class _Hook:
    """Handed to DDP, which calls ``reduce`` with each full bucket; reduces them in order on its thread."""

    def __init__(self, reducer: Reducer) -> None:
        self._reducer = reducer
        self._thread = ThreadPoolExecutor(1, "batchscale-ddp")

    def reduce(self, state, bucket):  # type: ignore[no-untyped-def]  # DDP wants no annotations that are text
        """A future of the bucket's mean over processes."""
        buffer: torch.Tensor = bucket.buffer()
        if buffer.is_cuda:  # in the order of the stream that backward runs on
            future: Future[torch.Tensor] = Future(devices=[buffer.device])
            self._reduce(buffer, future)
        else:
            future = Future()
            self._thread.submit(self._reduce, buffer, future)
        return future

    def _reduce(self, buffer: torch.Tensor, future: Future[torch.Tensor]) -> None:
        try:
            size = self._reducer.world.size
            short = buffer.dtype in (torch.float16, torch.bfloat16)  # divided first, as by DDP: a sum may overflow
            if short:
                buffer.div_(size)
            self._reducer.all_reduce(buffer, "all-reduce of DDP's gradients")
            future.set_result(buffer if short else buffer.div_(size))
        except Exception as error:
            future.set_exception(error)  # type: ignore[arg-type]

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
        timeout_seconds: a peer silent for this long has hung.

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
    sizes = sorted({min(total, size) for size in (_FIRST_BUCKET_BYTES, _BUCKET_BYTES)})
    zeros = [torch.zeros(-(-size // 4), device=reducer.world.device) for size in sizes]
    reducer.use(choose(reducer, algorithm, zeros, {}))
    hook = _Hook(reducer)
    model.register_comm_hook(None, hook.reduce)
    weakref.finalize(model, hook.close)
    return reducer.choice
