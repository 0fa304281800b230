"""Networks by name: small reference nets. Each takes (in_channels, num_classes), images of any size from 8x8."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from batchscale.models.cnn import cnn
from batchscale.models.resnet import resnet8, resnet20
from batchscale.models.simple_cnn import simple_cnn

ModelBuilder = Callable[[tuple[int, ...], int], nn.Module]

MODELS: dict[str, ModelBuilder] = {
    "cnn": cnn,
    "simple_cnn": simple_cnn,
    "resnet8": resnet8,
    "resnet20": resnet20,
}
"""Every network that a recipe may name: (image shape (C, H, W), number of classes) -> module."""

__all__ = ["MODELS", "ModelBuilder"]
