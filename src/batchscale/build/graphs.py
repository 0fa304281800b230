"""What a run must be for its passes to be captured as CUDA graphs."""

from __future__ import annotations

import torch

from batchscale.errors import RecipeError
from batchscale.recipe import Recipe


def check_graphs(recipe: Recipe, device: torch.device, draws_random: bool, inputs: object) -> None:
    """Raise where passes cannot be captured.

    Args:
        recipe: with numerics.cuda_graph.
        device: of the passes.
        draws_random: a pass draws random numbers, by a seed of its own.
        inputs: of a pass.

    Raises:
        RecipeError: why, and the way out.
    """
    if device.type != "cuda":
        reason = f"passes run on a {device.type.upper()}, which has no CUDA graphs"
    elif recipe.batch_norm.span > 1:
        reason = f"with batch_norm.span={recipe.batch_norm.span} workers wait for each other at every batch norm"
    elif draws_random:
        reason = "the model draws random numbers, by a seed that a graph would keep"
    elif not isinstance(inputs, torch.Tensor):
        reason = "the task's inputs are no single tensor of one shape"
    else:
        return
    raise RecipeError(f"numerics.cuda_graph=true: {reason}; use numerics.cuda_graph=false")
