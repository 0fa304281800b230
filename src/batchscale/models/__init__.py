"""Networks by name: small nets here, every other one from torchvision or timm."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import nn

from batchscale.members import MODELS as MEMBERS
from batchscale.models.library import is_library_name, library_model

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
        RecipeError: the library is not installed, or knows no such classifier.
    """
    if is_library_name(name):
        return library_model(name, image_shape, num_classes)
    return MODELS[name](image_shape, num_classes)


__all__ = ["MODELS", "ModelBuilder", "named_model"]
