"""numerics.wire: the type that gradients are sent in between processes, and where it has no place."""

from __future__ import annotations

import torch

from batchscale.recipe.schema import Recipe
from batchscale.recipe.wire import check_wire

WIRES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
"""numerics.wire -> the type; None: the gradients' own."""


def wire_of(recipe: Recipe) -> torch.dtype | None:
    """The 16-bit type that gradients are sent in; None for their own.

    Raises:
        ExactnessError: exact mode, whose sums are exact.
        RecipeError: gradients of another type than float32.
    """
    check_wire(recipe)
    return WIRES[recipe.numerics.wire]
