"""AdamW's preconditioner at a step: P = 1 / (sqrt(v / (1 - b2^t)) + eps), a number for every weight.

Source: Kingma and Ba 2015, algorithm 1; the noise scale in its metric, tr(P S) / (G' P G): McCandlish et al. 2018,
appendix C, with P for the inverse of the Hessian.
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
        corrected = second / (1 - entry.beta2 ** float(steps[place]))
        parts.append((1 / (corrected.sqrt() + entry.epsilon)).reshape(-1))
    return torch.cat(parts).to(state.device)
