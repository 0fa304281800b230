"""Networks of libraries by name, with as many outputs as the data has classes; nothing is downloaded.

| name | what it is |
|---|---|
| torchvision/NAME | a classifier; for segmentation a net and its auxiliary classifier: {"out": logits, "aux": logits} |
| timm/NAME | a classifier |
| smp/ARCHITECTURE.ENCODER | a net of segmentation_models_pytorch; without an encoder one on resnet34 |

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
    """Whether a name is torchvision/NAME, timm/NAME or smp/NAME."""
    return name.startswith(tuple(f"{library}/" for library in _LIBRARIES))


def library_model(name: str, image_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """A network of a library, its weights freshly drawn.

    Args:
        name: torchvision/NAME, timm/NAME or smp/NAME.
        image_shape: (C, H, W) of an image.
        num_classes: outputs.

    Returns:
        images (n, C, H, W) -> logits (n, num_classes), of segmentation (n, num_classes, H, W).

    Raises:
        RecipeError: the library is not installed, or knows no such network.
    """
    library, _, wanted = name.partition("/")
    return _LIBRARIES[library](wanted, image_shape[0], num_classes)


def _from_torchvision(name: str, channels: int, num_classes: int) -> nn.Module:
    from torchvision import models

    known, of_pixels = models.list_models(module=models), models.list_models(module=models.segmentation)
    if name not in (*known, *of_pixels):
        raise _unknown("torchvision", name, [*known, *of_pixels])
    options: dict[str, Any] = {"weights": None, "num_classes": num_classes}
    if name in of_pixels:
        options["weights_backbone"] = None  # else it would be downloaded
        if not name.startswith("lraspp"):  # which has none
            options["aux_loss"] = True
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


def _from_smp(name: str, channels: int, num_classes: int) -> nn.Module:
    try:
        import segmentation_models_pytorch as smp
    except ImportError:
        raise RecipeError(
            f"model.name=smp/{name}: segmentation_models_pytorch is not installed; run pip install 'batchscale[smp]', "
            f"or choose a torchvision/ model"
        ) from None
    architecture, _, encoder = name.partition(".")
    if architecture not in smp.MODEL_ARCHITECTURES_MAPPING:
        raise _unknown("smp", architecture, list(smp.MODEL_ARCHITECTURES_MAPPING))
    encoder = encoder or "resnet34"
    try:
        model: nn.Module = smp.create_model(
            architecture, encoder, encoder_weights=None, in_channels=channels, classes=num_classes
        )
    except (KeyError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise RecipeError(
            f"model.name=smp/{name}: cannot be built on encoder {encoder!r} ({reason}); name one of "
            f"segmentation_models_pytorch.encoders.get_encoder_names()"
        ) from None
    return model


_LIBRARIES = {"torchvision": _from_torchvision, "timm": _from_timm, "smp": _from_smp}


def _unknown(library: str, name: str, known: Sequence[str]) -> RecipeError:
    return RecipeError(
        f"model.name={library}/{name}: no network of {library}; the nearest is {library}/{nearest(name, known)}"
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
