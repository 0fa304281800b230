"""Training examples in memory that are kept on the device: where they take at most a quarter of what is free there.

Then a pass brings the device only what was drawn: numbers of examples, places of crops, mirrors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from batchscale.data.examples import Examples, TensorExamples
from batchscale.structure import columns

_SHARE = 4  # the optimizer's state is there already; the passes and the evaluation are yet to come


@dataclass(frozen=True)
class Resident:
    """What was decided, and the examples where they are kept.

    Attributes:
        num_bytes: that they take on the device; None of examples that are no tensors in memory.
        limit: bytes.
    """

    num_bytes: int | None
    limit: int
    examples: TensorExamples | None = None

    def as_json(self) -> dict[str, object]:
        """For environment.json."""
        return {"kept": self.examples is not None, "bytes": self.num_bytes, "limit_bytes": self.limit}


def free_memory(device: torch.device) -> int:
    """Bytes that are free on a GPU, those included that torch's allocator holds and nobody uses; else 0."""
    if device.type != "cuda":
        return 0
    held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + held


def resident(
    examples: Examples, padding: int, device: torch.device, free: Callable[[torch.device], int] = free_memory
) -> Resident | None:
    """Keep a run's training examples on its device, where they fit; None on the CPU, where they are anyway.

    Args:
        examples: that are trained on.
        padding: of their crops, which are cut out of a padded copy.
        device: of the run.
        free: bytes of a device.
    """
    if device.type == "cpu":
        return None
    limit = free(device) // _SHARE
    if not isinstance(examples, TensorExamples) or not _drawn_by_numbers(examples):
        return Resident(None, limit)
    num_bytes = examples.num_bytes(padding)
    return Resident(num_bytes, limit, examples.on(device) if num_bytes <= limit else None)


def _drawn_by_numbers(examples: TensorExamples) -> bool:
    """All of it is tensors, and a subclass does nothing of its own to them."""
    lists = any(isinstance(column, list) for column in columns((examples.inputs, examples.targets)))
    return not lists and type(examples).augmented is TensorExamples.augmented
