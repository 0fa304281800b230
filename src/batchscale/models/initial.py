"""Initial weights: those of a paper, or those of a local file.

last gamma of a residual block = 0;   last fully connected layer: w ~ N(0, s^2), b = 0

Source: Goyal et al. 2017, section 5.1 (s = 0.01, gamma = 0).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
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
        known = ", ".join(f"{norm} of {block}" for block, norm in _LAST_NORM.items())
        raise RecipeError(
            f"model.zero_init_last_gamma=true: model {name} has no block whose last norm is known ({known}); "
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


def load_pretrained(model: nn.Module, file: str) -> None:
    """Put the weights of a local file into the model.

    Args:
        model: changed in place.
        file: safetensors, or what torch.save wrote: a state dict, alone or under "state_dict" or "model".

    Raises:
        RecipeError: the file cannot be read, or holds another model's weights.
    """
    saved, own = _read(file), model.state_dict()
    optional = {n for n in own if n.endswith("num_batches_tracked")}  # not in files from before torch 0.4.1
    missing, beyond = sorted(own.keys() - saved.keys() - optional), sorted(saved.keys() - own.keys())
    odd = [n for n in own if n in saved and saved[n].shape != own[n].shape]
    said = ""
    if odd:
        said = f"{odd[0]} is {tuple(saved[odd[0]].shape)} there, {tuple(own[odd[0]].shape)} in the model"
        said += f" (and {len(odd) - 1} more differ)" if len(odd) > 1 else ""
    elif missing or beyond:
        said = f"{missing[0]} is missing there" if missing else f"{beyond[0]} has no place in the model"
    if said:
        raise RecipeError(f"model.pretrained={file}: {said}; give weights of this model, classes and image channels")
    model.load_state_dict({**own, **saved})


def _read(file: str) -> Mapping[str, torch.Tensor]:
    path = Path(file)
    if not path.is_file():
        raise RecipeError(f"model.pretrained={file}: no such file; give a local file (nothing is downloaded)")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # readers refuse damage, and the unpickler code, with many kinds of errors
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if "weights only" in reason.lower():  # torch goes on to say how to run the code that the file holds
            reason = "damaged, or not tensors alone"
        raise RecipeError(f"model.pretrained={file}: cannot be read as weights ({reason}); give safetensors") from None
    for name in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            content = content[name]
    if not isinstance(content, dict) or not all(isinstance(t, torch.Tensor) for t in content.values()):
        raise RecipeError(f"model.pretrained={file}: holds no state dict; save model.state_dict(), or use safetensors")
    return {name.removeprefix("module."): tensor for name, tensor in content.items()}
