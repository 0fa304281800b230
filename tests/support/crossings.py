"""The meta device in a GPU's place: every crossing between host and device is counted, mixed devices are refused.

A tensor on the meta device has a shape and a type, and no numbers. So a whole run's step goes through, and wherever the
host asks for a number of the device, or brings one, that shows: `Crossings` counts it by kind and by place.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.nn.utils import clip_grad
from torch.optim import optimizer
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import batchscale
from batchscale.worker.precision import LowPrecision

META = torch.device("meta")
TO_DEVICE, TO_HOST, LATER = "host -> device", "device -> host", "device -> host, read later"
_SOURCE = Path(batchscale.__file__).parent
aten = torch.ops.aten


class Crossings(TorchDispatchMode):
    """While it is entered, counts what crosses in this thread.

    Args:
        number: that the host reads wherever it asks the device for one; what is asked whether is so.

    Attributes:
        counts: (kind, "file:function" of the innermost frame of batchscale) -> how often.
        mixed: operations on tensors of both devices, which a GPU refuses.
    """

    def __init__(self, number: int = 0) -> None:
        super().__init__()
        self._read = number
        self.counts: Counter[tuple[str, str]] = Counter()
        self.mixed: list[str] = []

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        if op is aten._local_scalar_dense.default and tensors[0].is_meta:  # item(), bool(), float(), int()
            return self._number(tensors[0])
        if op is aten.equal.default and tensors[0].is_meta:
            self._count(TO_HOST)
            return True
        if op is aten._to_copy.default:
            target = torch.device(kwargs.get("device") or tensors[0].device)
            if target != tensors[0].device:
                self._count(TO_DEVICE if target == META else TO_HOST)
                return torch.full(
                    tensors[0].shape, self._read, dtype=kwargs.get("dtype") or tensors[0].dtype, device=target
                )
        if op is aten.copy_.default and args[0].device != args[1].device:
            waits = not (args[2] if len(args) > 2 else kwargs.get("non_blocking", False))
            self._count(TO_DEVICE if args[0].is_meta else TO_HOST if waits else LATER)
            return args[0] if args[0].is_meta else args[0].fill_(self._read)
        if op is aten.lift_fresh.default and tensors[0].is_meta:  # torch.tensor(numbers, device=...), new_tensor
            self._count(TO_DEVICE)
        # A tensor without dimensions may lie on the host: it goes along as a number.
        if len({tensor.device for tensor in tensors if tensor.ndim}) > 1:
            self.mixed.append(f"{op} in {_place()}")
        try:
            return op(*args, **kwargs)
        except NotImplementedError:
            return _without_numbers(op, args, kwargs)

    def _number(self, tensor: torch.Tensor) -> Any:
        self._count(TO_HOST)
        return tensor.dtype == torch.bool or (float(self._read) if tensor.is_floating_point() else self._read)

    def _count(self, kind: str) -> None:
        self.counts[kind, _place()] += 1


def _without_numbers(op: Any, args: Any, kwargs: Any) -> Any:
    """What an operation returns that the meta device does not have: its outputs, where they are given to it."""
    if op is aten.batch_norm_update_stats.default:  # mean and variance of every channel
        return args[0].new_empty(args[0].shape[1]), args[0].new_empty(args[0].shape[1])
    if "out" in kwargs:
        return kwargs["out"]
    outputs = [kwargs[name] for name in kwargs if name.startswith("out")]
    if outputs:
        return tuple(outputs)
    if op._schema.is_mutable:
        return None
    raise NotImplementedError(f"{op} on the meta device, in {_place()}")


def _of_a_cpu(function: Any) -> Any:
    """A function of a device's type, which takes the meta device for a CPU."""
    return lambda kind, *rest: function("cpu" if kind == "meta" else kind, *rest)


def _place() -> str:
    """The file and the named function of batchscale that is innermost on the stack; not one that walks structures."""
    frame = sys._getframe(1)
    while frame is not None:
        file, name = Path(frame.f_code.co_filename), frame.f_code.co_name
        if _SOURCE in file.parents and not name.startswith("<") and file.name != "structure.py":
            return f"{file.relative_to(_SOURCE)}:{name}"
        frame = frame.f_back
    return "outside"


@contextmanager
def meta_as_gpu(monkeypatch: Any) -> Iterator[None]:
    """What the meta device lacks and a GPU has: autocast, fused optimizers, lists of tensors at once."""
    with monkeypatch.context() as patch:
        supported = optimizer._get_fused_kernels_supported_devices
        patch.setattr(optimizer, "_get_fused_kernels_supported_devices", lambda: [*supported(), "meta"])
        patch.setattr(clip_grad, "_device_has_foreach_support", lambda device: True)
        for name in ("is_autocast_enabled", "get_autocast_dtype", "set_autocast_enabled", "set_autocast_dtype"):
            patch.setattr(torch, name, _of_a_cpu(getattr(torch, name)))
        patch.setattr(LowPrecision, "forward", lambda self, *inputs: self._model(*inputs))
        yield
