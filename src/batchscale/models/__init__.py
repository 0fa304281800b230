"""Networks by name: small nets here, every other one from torchvision or timm."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from batchscale.models.cnn import cnn
from batchscale.models.keskar import keskar_c1, keskar_f1
from batchscale.models.library import is_library_name, library_model, resnet50, resnet101
from batchscale.models.resnet import resnet8, resnet20, resnet44
from batchscale.models.simple_cnn import simple_cnn
from batchscale.models.vgg import vgg11
from batchscale.models.wide_resnet import wrn16_4

ModelBuilder = Callable[[tuple[int, ...], int], nn.Module]

MODELS: dict[str, ModelBuilder] = {
    "cnn": cnn,
    "simple_cnn": simple_cnn,
    "resnet8": resnet8,
    "resnet20": resnet20,
    "resnet44": resnet44,
    "resnet50": resnet50,
    "resnet101": resnet101,
    "vgg11": vgg11,
    "wrn16_4": wrn16_4,
    "keskar_f1": keskar_f1,
    "keskar_c1": keskar_c1,
}
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
