"""A network of two fully connected layers."""

from __future__ import annotations

import math

from torch import nn

_WIDTH = 32


def mlp(image_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """Images (m, C, H, W) -> logits (m, num_classes)."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(math.prod(image_shape), _WIDTH), nn.ReLU(), nn.Linear(_WIDTH, num_classes)
    )
