"""Networks by name: small nets here, every other one from torchvision or timm."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import nn

from batchscale.errors import RecipeError
from batchscale.members import MODELS as MEMBERS
from batchscale.models.library import is_library_name, library_model
from batchscale.words import counted

ModelBuilder = Callable[[tuple[int, ...], int], nn.Module]

MODELS: Mapping[str, ModelBuilder] = MEMBERS
"""Every network with a plain name: (image shape (C, H, W), number of classes) -> module."""


def named_model(name: str, image_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """A network by its name in recipes: a member of the table, torchvision/NAME or timm/NAME.

    Args:
        name: of the network.
        image_shape: (C, H, W) of an image.
        num_classes: outputs.

    Returns:
        images (n, C, H, W) -> logits (n, num_classes), with freshly drawn weights.

    Raises:
        UsageError: the library is not installed, or knows no such classifier; a plugin's builder fails.
    """
    if is_library_name(name):
        return library_model(name, image_shape, num_classes)
    build, place = MEMBERS[name], f"images {tuple(image_shape)}, {counted(num_classes, 'class')}"
    with MEMBERS.building(name, "model.name", place):
        model = build(image_shape, num_classes)
    if not isinstance(model, nn.Module):
        raise RecipeError(
            f"model.name={name}: its builder returned {type(model).__name__} for {place}: must be a torch module; "
            f"mend it, or use another model"
        )
    return model


__all__ = ["MODELS", "ModelBuilder", "named_model"]
