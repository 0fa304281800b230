"""batchscale's all-reduces in anybody's DistributedDataParallel.

    bucket <- (1 / W) sum over processes of bucket

DDP cuts its gradients into buckets in the order that backward makes them, and calls the hook as each is full.
The reductions run on one thread beside the backward pass, in order.

Cost: that of the algorithm; a bucket lies in DDP's own memory, so shared memory copies it in and out.

Source: Li et al. 2020, "PyTorch Distributed", section 3.2.3.
"""

from __future__ import annotations

import weakref
from concurrent.futures import ThreadPoolExecutor

import torch
from torch.futures import Future
from torch.nn.parallel import DistributedDataParallel

from batchscale.aggregate.choice import choose
from batchscale.comm import Choice, Reducer, World

_FIRST_BUCKET_BYTES, _BUCKET_BYTES = 1 << 20, 25 << 20  # DDP's own defaults


class _Hook:
    """Handed to DDP, which calls ``reduce`` with each full bucket; reduces them in order on its thread."""

    def __init__(self, reducer: Reducer) -> None:
        self._reducer = reducer
        self._thread = ThreadPoolExecutor(1, "batchscale-ddp")

    def reduce(self, state, bucket):  # type: ignore[no-untyped-def]  # DDP wants no annotations that are text
        """A future of the bucket's mean over processes."""
        buffer: torch.Tensor = bucket.buffer()
        if buffer.is_cuda:  # the backend's streams keep the order and the overlap
            future: Future[torch.Tensor] = Future(devices=[buffer.device])
            self._reduce(buffer, future)
        else:
            future = Future()
            self._thread.submit(self._reduce, buffer, future)
        return future

    def _reduce(self, buffer: torch.Tensor, future: Future[torch.Tensor]) -> None:
        try:
            self._reducer.all_reduce(buffer, "all-reduce of DDP's gradients")
            future.set_result(buffer.div_(self._reducer.world.size))
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
        UsageError: an algorithm that these processes cannot run.
        ProcessError: a process died or hangs.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    world = World.of_process_group(parameters[0].device, timeout_seconds)
    reducer = Reducer(world, torus=torus, between=between)
    total = sum(p.nbytes for p in parameters)
    sizes = sorted({min(total, size) for size in (_FIRST_BUCKET_BYTES, _BUCKET_BYTES)})
    zeros = [torch.zeros(-(-size // 4), device=world.device) for size in sizes]
    reducer.use(choose(reducer, algorithm, zeros, {}))
    hook = _Hook(reducer)
    model.register_comm_hook(None, hook.reduce)
    weakref.finalize(model, hook.close)
    return reducer.choice
