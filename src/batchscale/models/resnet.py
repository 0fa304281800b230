"""Residual nets for 32x32 images: 6m + 2 layers in three stages of 16, 32 and 64 channels.

Source: He et al. 2015 (arXiv 1512.03385), section 4.2, with its parameter-free shortcut (option A).
ResNet-8 (m = 1) is the net of Shallue et al. 2018; ResNet-20 is m = 3,
ResNet-44 (m = 7) the net of Hoffer et al. 2017.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class BasicBlock(nn.Module):
    """y = relu(bn2(conv2(relu(bn1(conv1(x))))) + shortcut(x))."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.stride = stride
        self.new_channels = channels_out - channels_in

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x (n, C, H, W) -> (n, C', H/stride, W/stride)."""
        shortcut = x
        if self.new_channels:
            shortcut = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.new_channels))
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + shortcut)


def _resnet(blocks: int, image_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    layers: list[nn.Module] = [
        nn.Conv2d(image_shape[0], 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(inplace=True),
    ]
    channels = 16
    for stage, width in enumerate((16, 32, 64)):
        for block in range(blocks):
            layers.append(BasicBlock(channels, width, 2 if stage and not block else 1))
            channels = width
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, num_classes))
    for module in net.modules():
        if isinstance(module, nn.Conv2d):  # He et al. 2015, section 3.4
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return net


def resnet8(image_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """6 x 1 + 2 layers; images (n, C, H, W) -> logits (n, num_classes)."""
    return _resnet(1, image_shape, num_classes)


def resnet20(image_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """6 x 3 + 2 layers; images (n, C, H, W) -> logits (n, num_classes)."""
    return _resnet(3, image_shape, num_classes)


def resnet44(image_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """6 x 7 + 2 layers; images (n, C, H, W) -> logits (n, num_classes)."""
    return _resnet(7, image_shape, num_classes)
