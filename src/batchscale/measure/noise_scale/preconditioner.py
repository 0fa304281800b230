"""AdamW's preconditioner at a step: P = 1 / (sqrt(v / (1 - b2^t)) + eps), a number for every weight.

Where the betas have changed on the way, the product of all b2 used stands for b2^t, as in the optimizer; eps is as the
recipe states it, also where a rule scales it. In the coordinates P^(-1/2) w, where AdamW's step is plain descent, the
gradient is P^(1/2) g: the noise scale there is tr(P S) / (G' P G).

Source: Kingma and Ba 2015, algorithm 1; McCandlish et al. 2018, section 2.2 (of plain descent; the coordinates are
ours).
"""

from __future__ import annotations

import torch

from batchscale.build.state import State
from batchscale.recipe.optimizer import AdamWEntry
from batchscale.update.sgd import decay_groups


def preconditioner(state: State) -> torch.Tensor | None:
    """P of every trained weight in the order of the model's parameters, float64 (all weights,).

    Returns:
        None where the run's optimizer is not AdamW, or its moments are not in the checkpoint.
    """
    entry = state.recipe.optimizer
    steps = state.tensors.get("optimizer.steps")
    if not isinstance(entry, AdamWEntry) or steps is None or not bool((steps > 0).all()):
        return None
    groups = decay_groups(state.model, entry.weight_decay, entry.decay_norms, entry.decay_biases)
    order = [parameter for parameters, _ in groups for parameter in parameters]  # as the optimizer numbers them
    places = {id(parameter): place for place, parameter in enumerate(order)}
    parts = []
    for parameter in (p for p in state.model.parameters() if p.requires_grad):
        place = places[id(parameter)]
        second = state.tensors[f"optimizer.second.{place}"].double()
        corrected = second / (1 - _left(state, entry.beta2, place))
        parts.append((1 / (corrected.sqrt() + entry.epsilon)).reshape(-1))
    return torch.cat(parts).to(state.device)


def _left(state: State, stated: float, place: int) -> float:
    """b2^t of a tensor: how much of the zeros that v began with is left in it.

    Args:
        state: opened.
        stated: b2 of the recipe, at its reference minibatch.
        place: of the tensor among the optimizer's.
    """
    products, betas = state.tensors.get("optimizer.products"), state.tensors.get("optimizer.betas")
    if products is not None and float(products[1, place]) >= 0:
        return float(products[1, place])
    used = stated if betas is None or float(betas[1]) < 0 else float(betas[1])
    return float(used ** float(state.tensors["optimizer.steps"][place]))
