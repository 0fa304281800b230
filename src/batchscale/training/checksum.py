"""A checksum of tensors where they lie: one number crosses to the host, where a sha256 wants every byte.

c = sum_i (2 i + 1) w_i mod 2^64,   w_i the tensors' bits as whole numbers of 32, one tensor after the other

Sums of whole numbers mod 2^64 hang on no order. An odd factor has an inverse, so one altered w_i always alters c; of
several altered ones c says nothing with certainty, and it is no seal against who alters them on purpose.

Source: ours; multiplication by odd numbers as in Dietzfelbinger et al. 1997, "A reliable randomized algorithm for the
closest-pair problem", section 2.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch

_CHUNK = 1 << 20  # numbers at once: 8 MiB of int64


def tensors_checksum(tensors: Iterable[torch.Tensor]) -> str:
    """The checksum of tensors of one device, in their order, each in its logical (row-major) layout.

    Args:
        tensors: of any types.

    Returns:
        16 hexadecimal digits.
    """
    sums, start = [], 0
    for words in _words(tensors):
        for chunk in torch.split(words, _CHUNK):
            factors = torch.arange(start, start + len(chunk), device=chunk.device) * 2 + 1
            sums.append((chunk.long() * factors).sum())
            start += len(chunk)
    total = int(torch.stack(sums).sum()) if sums else 0
    return f"{total % (1 << 64):016x}"


def _words(tensors: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
    """The bits of every tensor as whole numbers of 32; of a tensor of another length of bytes, its bytes."""
    for tensor in tensors:
        plain = tensor.detach().contiguous().reshape(-1)
        yield plain.view(torch.int32 if plain.element_size() % 4 == 0 else torch.uint8)
