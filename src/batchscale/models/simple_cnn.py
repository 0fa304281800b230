"""The simple CNN of Shallue et al. 2018 (arXiv 1811.03600, appendix B): no batch norm, ReLU, max-pooling."""

from __future__ import annotations

from torch import nn


def simple_cnn(image_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """conv32 (5x5) - pool - conv64 (5x5) - pool - dense 1024 - linear, all 'same' padded.

    Args:
        image_shape: (C, H, W) of an image.
        num_classes: outputs.

    Returns:
        images (n, C, H, W) -> logits (n, num_classes).
    """
    channels, height, width = image_shape
    return nn.Sequential(
        nn.Conv2d(channels, 32, 5, padding=2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 5, padding=2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * (height // 4) * (width // 4), 1024),
        nn.ReLU(inplace=True),
        nn.Linear(1024, num_classes),
    )
