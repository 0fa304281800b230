"""What the process of a contender is told."""

from __future__ import annotations

from dataclasses import dataclass

from batchscale.bench.assignment import Assignment
from batchscale.recipe.schema import ON_DISK


@dataclass(frozen=True)
class DataAssignment(Assignment):
    """An assignment whose steps are minibatches.

    Args:
        contender: whose minibatches.
    """

    contender: str = ""

    @property
    def on_disk(self) -> bool:
        """Whether the images are files."""
        return self.recipe.data.name in ON_DISK
