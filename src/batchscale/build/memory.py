"""Whether a pass fits into a device's memory: what an allocator says when it has none left, and how much is left."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import torch

from batchscale.errors import RecipeError
from batchscale.system.allocator import release_freed_memory

_LEFT_FREE = (
    0.1  # of a GPU's memory: the optimizer's state, the feed's next passes and the libraries' work space follow
)
_MOST_EVALUATED = 2_000_000_000  # bytes of the inputs of an evaluation pass without a warning
_SAYINGS = (
    "allocate memory",  # DefaultCPUAllocator
    "not enough memory",  # the same on Windows
    "out of memory",  # CUDA, where no allocator of torch's was asked
    "ALLOC_FAILED",  # cuBLAS, cuDNN
)


class Memory(Protocol):
    """A device's memory, as the trial of pass sizes sees it."""

    def release(self) -> None:
        """Give back what is held for later use, so that what a pass needs can be seen."""

    def is_short(self) -> bool:
        """Whether less is left than a run needs beside its passes."""


class HostMemory:
    """A host's: it is everybody's, so a pass is too large only where the allocator says so."""

    def release(self) -> None:
        """What the C library holds of tensors that are gone."""
        release_freed_memory()

    def is_short(self) -> bool:
        """Not known."""
        return False


class DeviceMemory:
    """A GPU's, other programs' part of it included.

    Args:
        device: the GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def release(self) -> None:
        """What torch's allocator holds of tensors that are gone."""
        torch.cuda.empty_cache()

    def is_short(self) -> bool:
        """After a pass: torch holds the most that it needed, so what is free now is what was free at the peak."""
        free, total = torch.cuda.mem_get_info(self._device)
        return free < _LEFT_FREE * total


def memory_of(device: torch.device) -> Memory:
    """The memory of a device."""
    return DeviceMemory(device) if device.type == "cuda" else HostMemory()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there was not memory enough."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(saying in str(error) for saying in _SAYINGS)


def does_not_fit(per_worker: int, examples: int, error: BaseException) -> RecipeError:
    """The error where not even the fewest examples fit.

    Args:
        per_worker: n.
        examples: of the pass, g n.
        error: of the allocator.
    """
    return RecipeError(
        f"minibatch.per_worker={per_worker}: a pass of {examples} examples, the fewest that run together, does not fit "
        f"into memory ({first_line(error)}); use a smaller minibatch.per_worker with more minibatch.workers, or "
        f"precision=bf16"
    )


def evaluation_warning(chunk: int, examples: int, shape: Sequence[int], noun: str) -> str | None:
    """That one evaluation pass holds very much; None where it does not.

    Args:
        chunk: numerics.evaluation_chunk, which no default can know: another one adds up the loss in other parts.
        examples: that are evaluated.
        shape: of the largest.
        noun: what the task calls them.
    """
    each = 4 * math.prod(shape)  # as the network gets them: float32
    held = min(chunk, examples) * each
    if held <= _MOST_EVALUATED:
        return None
    return (
        f"an evaluation pass of {min(chunk, examples)} {noun} of {'x'.join(map(str, shape))} takes up to "
        f"{held / 1e9:.1f} GB before the network computes anything; "
        f"numerics.evaluation_chunk={max(_MOST_EVALUATED // each, 1)} takes {_MOST_EVALUATED / 1e9:g} GB at most"
    )


def first_line(error: BaseException) -> str:
    """What an error says, without what follows."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__
