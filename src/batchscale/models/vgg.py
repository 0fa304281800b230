"""VGG-11 for 32x32 images: configuration A with batch norm before every ReLU and one linear layer.

Source: Simonyan and Zisserman 2014 (arXiv 1409.1556), table 1, column A; the three dense layers of its ImageNet form
give way to one, as is usual on CIFAR.
"""

from __future__ import annotations

from torch import nn


def vgg11(image_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """Eight convolutions 3x3 of 64 to 512, five poolings, linear; 9,231,114 weights on CIFAR-10.

    Args:
        image_shape: (C, H, W) of an image.
        num_classes: outputs.

    Returns:
        images (n, C, H, W) -> logits (n, num_classes).
    """
    layers: list[nn.Module] = []
    channels = image_shape[0]
    for widths in ((64,), (128,), (256, 256), (512, 512), (512, 512)):
        for width in widths:
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
            channels = width
        layers.append(nn.MaxPool2d(2, ceil_mode=True))  # so that 28x28 images, too, have a pixel left at the end
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes))
    for module in net.modules():
        if isinstance(module, nn.Conv2d):  # without it the lowest layers learn slowly
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return net
