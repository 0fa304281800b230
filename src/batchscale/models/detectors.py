"""Torchvision's Faster and Mask R-CNN by name; nothing is downloaded.

Images come normalised from the feed, so the model's own normalisation is the identity (mean 0, deviation 1). It resizes
them so that the short side is min_size, the long one max_size at most. From random weights the backbone has batch norm,
over the n images of a worker; where weights come from a file, its batch norm is frozen as that file has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

DETECTORS = ("fasterrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn")
"""Those of torchvision that recipes may name, as torchvision/NAME."""

OPTIONS = ("min_size", "max_size")
"""What model.options may say of them; torchvision's 800 and 1333."""


def is_detector(name: str) -> bool:
    """Whether a name is torchvision/NAME of a detector."""
    return name.removeprefix("torchvision/") in DETECTORS and name.startswith("torchvision/")


def torchvision_detector(name: str, channels: int, num_classes: int, options: Mapping[str, int | float]) -> nn.Module:
    """A detector, its weights freshly drawn.

    Args:
        name: in ``DETECTORS``.
        channels: of an image, which must be those of RGB.
        num_classes: the background included; 91 of torchvision's own weights.
        options: in ``OPTIONS``.
    """
    from torchvision.models import detection

    build: Any = getattr(detection, name)
    model: nn.Module = build(
        weights=None, weights_backbone=None, num_classes=num_classes,
        image_mean=[0.0] * channels, image_std=[1.0] * channels, **options,
    )  # fmt: skip
    return model


def always_sample(model: nn.Module) -> None:
    """Give a detector's heads the whole image to learn from, as background, in a pass that has nothing else.

    torchvision's losses of the heads are means over sampled proposals and objects. Of images without an object, for
    which the network, its weights still wild, proposes no box either, that is 0 / 0; all other passes stay as they are.
    """
    model.get_submodule("roi_heads").register_forward_pre_hook(_with_samples)


def _with_samples(heads: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...] | None:
    features, proposals, sizes, targets = arguments
    if not heads.training or any(map(len, proposals)) or any(len(target["boxes"]) for target in targets):
        return None
    whole = [boxes.new_tensor([[0, 0, size[1], size[0]]]) for boxes, size in zip(proposals, sizes, strict=True)]
    return features, whole, sizes, targets


def freeze_batch_norm(model: nn.Module) -> None:
    """Put torchvision's frozen batch norm in the place of every batch norm: constants, as its weights were made with.

    y = gamma (x - mean) / sqrt(var + eps) + beta,   all of the file
    """
    from torchvision.ops import FrozenBatchNorm2d

    for parent in list(model.modules()):
        for child, layer in parent.named_children():
            if isinstance(layer, nn.BatchNorm2d):
                frozen = FrozenBatchNorm2d(layer.num_features, layer.eps)
                with torch.no_grad():
                    for name, buffer in frozen.named_buffers():
                        buffer.copy_(getattr(layer, name))
                setattr(parent, child, frozen)
