"""The tensors of a structure end to end in one tensor of bytes, so that they cross to a device at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from batchscale.structure import mapped, tensors

_ALIGNED = 256  # bytes, as CUDA's allocator: any type may be read from where a tensor begins


@dataclass(frozen=True)
class Packing:
    """Where the tensors of a structure lie in their bytes.

    Attributes:
        form: the structure, its tensors without numbers (on the meta device), in their order of memory.
        num_bytes: of all.
    """

    form: Any
    num_bytes: int

    @classmethod
    def of(cls, structure: Any) -> Packing:
        """For structures like this one."""
        form = mapped(lambda tensor: torch.empty_like(tensor, device="meta"), structure)
        return cls(form, sum(_rounded(tensor) for tensor in tensors(form)))

    def pack(self, structure: Any, into: torch.Tensor) -> None:
        """Write all tensors into uint8 (num_bytes,)."""
        for view, tensor in zip(self._views(into), tensors(structure), strict=True):
            view.copy_(tensor)

    def unpack(self, packed: torch.Tensor) -> Any:
        """The structure again: its tensors are views of the bytes, wherever these lie."""
        views = deque(self._views(packed))
        return mapped(lambda tensor: views.popleft(), self.form)

    def _views(self, packed: torch.Tensor) -> Iterator[torch.Tensor]:
        start = 0
        for tensor in tensors(self.form):
            numbers = packed[start : start + tensor.numel() * tensor.itemsize].view(tensor.dtype)
            yield numbers.as_strided(tensor.shape, tensor.stride())
            start += _rounded(tensor)


def _rounded(tensor: torch.Tensor) -> int:
    return -(-tensor.numel() * tensor.itemsize // _ALIGNED) * _ALIGNED
