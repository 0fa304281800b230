"""Networks by name: small nets here, every other one from torchvision, timm or segmentation_models_pytorch."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence

from torch import nn

from batchscale.errors import RecipeError
from batchscale.members import MODELS as MEMBERS
from batchscale.models.detectors import OPTIONS, is_detector, torchvision_detector
from batchscale.models.library import is_library_name, library_model
from batchscale.models.taking import inputs_of
from batchscale.words import counted, did_you_mean

ModelBuilder = Callable[..., nn.Module]

MODELS: Mapping[str, ModelBuilder] = MEMBERS
"""Every network with a plain name: (image shape (C, H, W), number of classes, options by name) -> module."""


def named_model(
    name: str, image_shape: tuple[int, ...], num_classes: int, options: Mapping[str, int | float] | None = None
) -> nn.Module:
    """A network by its name in recipes: a member of the table, torchvision/NAME, timm/NAME or smp/NAME.

    Args:
        name: of the network.
        image_shape: (C, H, W) of an image, (T,) of a sequence.
        num_classes: outputs.
        options: of the network, such as its width; those that it has are the arguments of its builder by name.

    Returns:
        images (n, C, H, W) -> logits (n, num_classes), of segmentation (n, num_classes, H, W), of sequences
        (n, T, num_classes), with freshly drawn weights; of detection (images, targets) -> losses by name in training,
        images -> boxes in evaluation.

    Raises:
        UsageError: the library is not installed, or knows no such network; the network has no such option; a plugin's
            builder fails.
    """
    options = options or {}
    if is_detector(name):
        _check_options(name, options, OPTIONS)
        return torchvision_detector(name.partition("/")[2], image_shape[0], num_classes, options)
    if is_library_name(name):
        _check_options(name, options, ())
        return library_model(name, image_shape, num_classes)
    build = MEMBERS[name]
    place = f"{inputs_of(build).partition(' (')[0]} {tuple(image_shape)}, {counted(num_classes, 'class')}"
    with MEMBERS.building(name, "model.name", place):
        parameters = dict(list(inspect.signature(build).parameters.items())[2:])
        _check_options(name, options, list(parameters))
        _check_whole(options, {option: parameter.default for option, parameter in parameters.items()})
        model = build(image_shape, num_classes, **options)
    if not isinstance(model, nn.Module):
        raise RecipeError(
            f"model.name={name}: its builder returned {type(model).__name__} for {place}: must be a torch module; "
            f"mend it, or use another model"
        )
    return model


def _check_options(name: str, options: Mapping[str, int | float], known: Sequence[str]) -> None:
    for option in options:
        if option not in known:
            has = f"it has {', '.join(known)}" if known else "it has none"
            raise RecipeError(
                f"model.options.{option}: no option of model.name={name}; {did_you_mean(option, known)}{has}; leave "
                f"it out"
            )


def _check_whole(options: Mapping[str, int | float], defaults: Mapping[str, object]) -> None:
    for option, value in options.items():
        if isinstance(value, float) and isinstance(defaults[option], int):
            raise RecipeError(
                f"model.options.{option}={value:g}: must be a whole number, as {defaults[option]}; give one"
            )


__all__ = ["MODELS", "ModelBuilder", "named_model"]
