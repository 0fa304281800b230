"""Tensors that go back to what they were where a flag of the device says so: the host does not know it, nor asks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

_LARGEST = 1 << 22  # numbers of a chunk: 16 MiB of float32, so that little is held twice


class Kept:
    """A copy of tensors, and the way back to it.

    Tensors of one type go together in chunks, so that many small ones cost a few launches.

    Args:
        tensors: live ones, each once.
    """

    def __init__(self, tensors: Iterable[torch.Tensor]) -> None:
        self._chunks = _chunks(tensors)
        self.keep()

    def keep(self) -> None:
        """Copy them."""
        self._copies = [_flat(chunk) for chunk in self._chunks]

    @torch.no_grad()
    def put_back(self, when: torch.Tensor) -> None:
        """Every tensor <- its copy, bit by bit, where ``when``, bool (), is so."""
        for chunk, copy in zip(self._chunks, self._copies, strict=True):
            chosen = torch.split(torch.where(when, copy, _flat(chunk)), [tensor.numel() for tensor in chunk])
            pieces = [piece.view(tensor.shape) for piece, tensor in zip(chosen, chunk, strict=True)]
            torch._foreach_copy_(chunk, pieces)


def _flat(chunk: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.cat([tensor.detach().reshape(-1) for tensor in chunk])


def _chunks(tensors: Iterable[torch.Tensor]) -> list[list[torch.Tensor]]:
    """Of one type and device each, and of at most so many numbers, but for a tensor that has more."""
    full: list[list[torch.Tensor]] = []
    filling: dict[torch.dtype, list[torch.Tensor]] = {}
    room: dict[torch.dtype, int] = {}
    for tensor in tensors:
        if tensor.numel() > room.get(tensor.dtype, -1):
            room[tensor.dtype] = _LARGEST
            full.append([])
            filling[tensor.dtype] = full[-1]
        room[tensor.dtype] -= tensor.numel()
        filling[tensor.dtype].append(tensor)
    return full
