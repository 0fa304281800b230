"""Where gradients cannot be sent in 16 bits."""

from __future__ import annotations

from batchscale.errors import ExactnessError, RecipeError
from batchscale.recipe.schema import Recipe


def check_wire(recipe: Recipe) -> None:
    """Raise where numerics.wire has no place beside the rest of a recipe.

    Raises:
        ExactnessError: exact mode, whose sums are exact.
        RecipeError: gradients of another type than float32.
    """
    wire = recipe.numerics.wire
    if wire != "fp32" and recipe.numerics.exact:
        raise ExactnessError(
            f"numerics.wire={wire} with numerics.exact=true: exact sums round nothing between processes; use "
            f"numerics.wire=fp32, or numerics.exact=false"
        )
    if wire != "fp32" and recipe.precision == "fp64":
        raise RecipeError(
            f"numerics.wire={wire} with precision=fp64: only gradients of float32 are sent in 16 bits; use "
            f"numerics.wire=fp32, or precision=fp32, bf16 or fp16"
        )
