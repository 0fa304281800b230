"""Classifiers of torchvision and timm by name, with as many outputs as the data has classes; nothing is downloaded.

ResNet-50 and -101 are torchvision's: the stride of a bottleneck lies on its 3x3 convolution ("v1.5"), as in
Goyal et al. 2017, section 5.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import nn

from batchscale.errors import RecipeError
from batchscale.words import nearest


def is_library_name(name: str) -> bool:
    """Whether a name is torchvision/NAME or timm/NAME."""
    return name.startswith(("torchvision/", "timm/"))


def library_model(name: str, image_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """A classifier of a library, its weights freshly drawn.

    Args:
        name: torchvision/NAME or timm/NAME.
        image_shape: (C, H, W) of an image.
        num_classes: outputs.

    Returns:
        images (n, C, H, W) -> logits (n, num_classes).

    Raises:
        RecipeError: the library is not installed, or knows no such classifier.
    """
    library, _, wanted = name.partition("/")
    build = _from_torchvision if library == "torchvision" else _from_timm
    return build(wanted, image_shape[0], num_classes)


def _from_torchvision(name: str, channels: int, num_classes: int) -> nn.Module:
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        raise _unknown("torchvision", name, known)
    options: dict[str, Any] = {"weights": None, "num_classes": num_classes}
    if name in ("googlenet", "inception_v3"):  # a second output, for training only, has no place in one loss
        options |= {"aux_logits": False, "init_weights": True}
    return _with_channels(models.get_model(name, **options), channels)


def _from_timm(name: str, channels: int, num_classes: int) -> nn.Module:
    try:
        import timm
    except ImportError:
        raise RecipeError(
            f"model.name=timm/{name}: timm is not installed; run pip install 'batchscale[timm]', "
            f"or choose a torchvision/ model"
        ) from None
    if not timm.is_model(name.partition(".")[0]):
        raise _unknown("timm", name, timm.list_models())
    create = partial(timm.create_model, name, pretrained=False, num_classes=num_classes, in_chans=channels)
    try:  # last gammas begin at 0 there: here a recipe says so
        model: nn.Module = create(zero_init_last=False)
    except TypeError as error:
        if "zero_init_last" not in str(error):
            raise
        model = create()
    return model


def _unknown(library: str, name: str, known: Sequence[str]) -> RecipeError:
    return RecipeError(
        f"model.name={library}/{name}: no classifier of {library}; the nearest is {library}/{nearest(name, known)}"
    )


def _with_channels(model: nn.Module, channels: int) -> nn.Module:
    """The same model with a first convolution that takes so many channels, drawn as He et al. 2015 draw."""
    name: str
    first: Any  # torch types the sizes of a layer more loosely than those it takes
    name, first = next((n, m) for n, m in model.named_modules() if isinstance(m, nn.Conv2d))
    if first.in_channels == channels:
        return model
    fitting = nn.Conv2d(
        channels, first.out_channels, first.kernel_size, first.stride, first.padding, bias=first.bias is not None
    )
    nn.init.kaiming_normal_(fitting.weight, mode="fan_out", nonlinearity="relu")
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, fitting)
    return model


def resnet50(image_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """torchvision's ResNet-50: 25,557,032 weights in 161 tensors at 1000 classes."""
    return _from_torchvision("resnet50", image_shape[0], num_classes)


def resnet101(image_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """torchvision's ResNet-101: 44,549,160 weights at 1000 classes."""
    return _from_torchvision("resnet101", image_shape[0], num_classes)
