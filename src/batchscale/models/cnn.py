"""A small convolutional net: three convolutions of 16, 32 and 64 with batch norm before every ReLU, global pooling.

24,058 weights on grey images of 10 classes, so that two CPU cores train it in minutes.
"""

from __future__ import annotations

from torch import nn


def cnn(image_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """conv16 - pool - conv32 - pool - conv64 - global average - linear.

    Args:
        image_shape: (C, H, W) of an image.
        num_classes: outputs.

    Returns:
        images (n, C, H, W) -> logits (n, num_classes).
    """
    layers: list[nn.Module] = []
    channels = image_shape[0]
    for index, width in enumerate((16, 32, 64)):
        if index:
            layers.append(nn.MaxPool2d(2))
        layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes))
