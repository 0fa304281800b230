"""What ranks write to each other beside their tensors: tags, keys, errors, and words for what they bring."""

from __future__ import annotations

import pickle
import zlib
from collections.abc import Callable
from typing import Any, cast

import torch
import torch.distributed as dist

from batchscale.errors import ProcessError
from batchscale.words import shown


def fact_key(fact: str) -> str:
    """The key of a fact; a store's are UTF-8, and a folder's name may be none."""
    return f"fact/{shown(fact)}"


def brought_by(tensor: torch.Tensor, wire: torch.dtype | None = None) -> str:
    """A tensor's length and type in words, and the type that it is sent in where that is another one."""
    sent = "" if wire is None else f" sent as {str(wire).removeprefix('torch.')}"
    return f"{tensor.numel()} x {str(tensor.dtype).removeprefix('torch.')}{sent}"


def tag_of(what: str, brought: str, call: int) -> int:
    """A message's tag that only the same call with the same length and type has (31 bits of a hash)."""
    return zlib.crc32(f"{what}/{brought}/{call}".encode()) >> 1


def meet(group: Any, rank: int, size: int, tag: int) -> None:
    """Wait until all ranks are in the call of this tag. Rounds: ceil(log2 W) of one number (dissemination barrier).

    Args:
        group: of all ranks, by Gloo.
        rank, size: of this process, and W.
        tag: of the call.
    """
    distance = 1
    while distance < size:
        ahead, behind = (rank + distance) % size, (rank - distance) % size
        received = dist.irecv(torch.empty(1), group=group, tag=tag, group_src=behind)
        sent = dist.isend(torch.empty(1), group=group, tag=tag, group_dst=ahead)
        cast(dist.Work, received).wait()
        cast(dist.Work, sent).wait()
        distance *= 2  # Hensgen, Finkel and Manber 1988: after each round twice as many ranks are known to be here


def outcome(make: Callable[[], Any]) -> list[Any]:
    """[value, None], or [None, the error that making it raised]."""
    try:
        return [make(), None]
    except Exception as error:
        return [None, _sendable(error)]


def _sendable(error: Exception) -> Exception:
    """The error, or its text where it cannot be pickled: the others must not wait for it in vain."""
    try:
        pickle.dumps(error)
    except Exception:
        return ProcessError(f"rank 0: {type(error).__name__}: {error}")
    return error
