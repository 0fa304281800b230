"""Muon: momentum whose matrices are made orthogonal, by torch's own; every other tensor goes by AdamW.

B <- u B + (1 - u) g;   O = NS(u B + (1 - u) g), without Nesterov NS(B)
W <- (1 - lr d) W - lr a O,   a by ``adjust_lr``: sqrt(max(1, A / B)), 0.2 sqrt(max(A, B)) or sqrt(A / B) of W (A, B)

NS is five iterations of Newton and Schulz, in bfloat16 whatever the precision, as torch has them. One lr and one decay
serve both: 0.2 sqrt(max(A, B)) gives O the size of AdamW's step, so that AdamW's lr holds (Moonshot).

Source: Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks"; Liu et al. 2025, "Muon is
Scalable for LLM Training" (match_rms_adamw); torch.optim.Muon.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from batchscale.update.adamw import AdamW
from batchscale.update.live import Groups


def hidden_matrices(model: nn.Module) -> list[nn.Parameter]:
    """The tensors that are Muon's: of two dimensions, neither an embedding's nor the output head's.

    The output head is the last module that has parameters of its own, where that is a linear layer. A head that is tied
    to an embedding is that embedding. Kernels of convolutions have more dimensions, biases and scales fewer.

    Args:
        model: its modules in the order in which they were made.

    Returns:
        Trainable ones, each once.

    Source: Jordan et al. 2024 (embeddings, heads and vectors by AdamW).
    """
    holders = [module for module in model.modules() if any(True for _ in module.parameters(recurse=False))]
    embeddings = [module for module in holders if isinstance(module, nn.Embedding | nn.EmbeddingBag)]
    heads = [module for module in holders[-1:] if isinstance(module, nn.Linear)]
    spared = {id(p) for module in (*embeddings, *heads) for p in module.parameters(recurse=False)}
    return [p for p in model.parameters() if p.ndim == 2 and p.requires_grad and id(p) not in spared]


class Muon:
    """Orthogonal steps for matrices, AdamW's for the rest.

    W <- (1 - lr d) W - lr a NS(momentum)

    Args:
        groups: (parameters, decay d of theirs).
        momentum: u in [0, 1); the attribute of this name may be set anew between steps.
        nesterov: look ahead.
        adjust_lr: a, as torch.optim.Muon names it: original, match_rms_adamw or spectral_unclamped.
        beta1, beta2, epsilon: of AdamW; may be set anew between steps.
        matrices: those that are Muon's; None for every tensor of two dimensions.

    Attributes:
        decay_factor: what every d is multiplied by in the next step.

    Source: Jordan et al. 2024; torch.optim.Muon.
    """

    def __init__(
        self,
        groups: Groups,
        momentum: float = 0.95,
        nesterov: bool = True,
        adjust_lr: str = "match_rms_adamw",
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        matrices: Sequence[nn.Parameter] | None = None,
    ) -> None:
        listed = [(list(parameters), decay) for parameters, decay in groups]
        chosen = [p for parameters, _ in listed for p in parameters if p.ndim == 2] if matrices is None else matrices
        numbers = {id(p) for p in chosen}
        self._groups: list[dict[str, Any]] = [
            {"params": [p for p in parameters if id(p) in numbers], "weight_decay": decay}
            for parameters, decay in listed
        ]
        self.momentum, self.beta1, self.beta2, self.epsilon = momentum, beta1, beta2, epsilon
        self.decay_factor, self._decays = 1.0, [decay for _, decay in listed]
        self._muon = torch.optim.Muon(self._groups, lr=0.0, nesterov=nesterov, adjust_lr_fn=adjust_lr)
        self._matrices = [p for group in self._groups for p in group["params"]]
        for matrix in self._matrices:  # zeros from the start, as torch's first step has them, always there to be saved
            self._muon.state[matrix]["momentum_buffer"] = torch.zeros_like(matrix)
        rest = [([p for p in parameters if id(p) not in numbers], decay) for parameters, decay in listed]
        self._rest = AdamW(rest, beta1, beta2, epsilon)

    def step(self, lr: float) -> None:
        """One update of every parameter from its ``grad``, at this lr."""
        for group, decay in zip(self._muon.param_groups, self._decays, strict=True):
            group |= {"lr": lr, "momentum": self.momentum, "weight_decay": decay * self.decay_factor}
        self._muon.step()  # type: ignore[no-untyped-call]
        rest = self._rest
        rest.beta1, rest.beta2, rest.epsilon, rest.decay_factor = (
            self.beta1,
            self.beta2,
            self.epsilon,
            self.decay_factor,
        )
        rest.step(lr=lr)

    def state(self) -> dict[str, torch.Tensor]:
        """All that a resume needs, by name: the live tensors, loaded by copying into them."""
        momenta = (self._muon.state[matrix]["momentum_buffer"] for matrix in self._matrices)
        return {
            **{f"momentum.{i}": momentum for i, momentum in enumerate(momenta)},
            **{f"adamw.{name}": tensor for name, tensor in self._rest.state().items()},
        }
