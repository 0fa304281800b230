"""The nets F1 and C1 of Keskar et al. 2016: batch norm before every ReLU.

Source: Keskar et al. 2016 (arXiv 1609.04836), appendix B, and the authors' published network_zoo.py (C1).
"""

from __future__ import annotations

import math

from torch import nn


def _dense(inputs: int, width: int) -> list[nn.Module]:
    return [nn.Linear(inputs, width), nn.BatchNorm1d(width), nn.ReLU(inplace=True)]


def keskar_f1(image_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """F1: five fully connected layers of 512 with batch norm and ReLU, then a linear one; 1,462,794 weights on MNIST.

    Args:
        image_shape: (C, H, W) of an image.
        num_classes: outputs.

    Returns:
        images (n, C, H, W) -> logits (n, num_classes).
    """
    layers = _dense(math.prod(image_shape), 512)
    for _ in range(4):
        layers += _dense(512, 512)
    return nn.Sequential(nn.Flatten(), *layers, nn.Linear(512, num_classes))


def keskar_c1(image_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """C1: twice (64 filters 5x5, pooling 3x3 by 2), dense 384 and 192 with dropout 0.5, linear: a small AlexNet.

    Args:
        image_shape: (C, H, W) of an image.
        num_classes: outputs.

    Returns:
        images (n, C, H, W) -> logits (n, num_classes).
    """
    channels, height, width = image_shape
    layers: list[nn.Module] = []
    for _ in range(2):
        layers += [nn.Conv2d(channels, 64, 5, padding=2), nn.BatchNorm2d(64), nn.ReLU(inplace=True)]
        layers.append(nn.MaxPool2d(3, 2, padding=1))
        channels, height, width = 64, -(-height // 2), -(-width // 2)
    dense = [*_dense(64 * height * width, 384), nn.Dropout(0.5), *_dense(384, 192), nn.Dropout(0.5)]
    return nn.Sequential(*layers, nn.Flatten(), *dense, nn.Linear(192, num_classes))
