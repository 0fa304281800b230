"""Initial weights as papers draw them; those of a local file: pretrained.py.

last gamma of a residual block = 0;   last fully connected layer: w ~ N(0, s^2), b = 0

Source: Goyal et al. 2017, section 5.1 (s = 0.01, gamma = 0).
"""

from __future__ import annotations

from torch import nn

from batchscale.errors import RecipeError

_LAST_NORM = {"BasicBlock": "bn2", "Bottleneck": "bn3"}
"""Class of a residual block, ours, torchvision's and timm's alike -> its norm before the addition.

A pre-activation block has none: its last norm stands before a ReLU, which at gamma 0 would let no gradient through.
"""


def last_gammas(model: nn.Module) -> list[nn.Parameter]:
    """The gammas that scale the residual branches, one a block."""
    norms = (getattr(m, _LAST_NORM.get(type(m).__name__, ""), None) for m in model.modules())
    return [norm.weight for norm in norms if isinstance(norm, nn.Module) and isinstance(norm.weight, nn.Parameter)]


def zero_last_gammas(model: nn.Module, name: str) -> None:
    """Start every residual block as the identity.

    Raises:
        RecipeError: the model has no residual block whose last norm is known.
    """
    gammas = last_gammas(model)
    if not gammas:
        last_norms = ", ".join(f"{norm} of {block}" for block, norm in _LAST_NORM.items())
        raise RecipeError(
            f"model.zero_init_last_gamma=true: model {name} has no block whose last norm is known ({last_norms}); "
            f"leave it out"
        )
    for gamma in gammas:
        nn.init.zeros_(gamma)


def init_last_linear(model: nn.Module, std: float, num_classes: int) -> None:
    """Draw the last fully connected layer's weights from N(0, std^2); its bias is 0.

    Raises:
        RecipeError: the last such layer does not give the logits.
    """
    layers = [m for m in model.modules() if isinstance(m, nn.Linear)]
    if not layers or layers[-1].out_features != num_classes:
        raise RecipeError(
            f"model.fc_init={std:g}: the model does not end in a fully connected layer of {num_classes} outputs; "
            f"leave it out"
        )
    nn.init.normal_(layers[-1].weight, std=std)
    if layers[-1].bias is not None:
        nn.init.zeros_(layers[-1].bias)
