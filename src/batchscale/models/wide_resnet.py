"""Wide residual net WRN-16-4 for 32x32 images: pre-activation blocks, 16 layers, 4 times as wide as ResNet.

y = x + conv2(relu(bn2(conv1(relu(bn1(x))))))

Source: Zagoruyko and Komodakis 2016 (arXiv 1605.07146), section 2 and table 1 (N = 2, k = 4), without dropout.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class PreActivationBlock(nn.Module):
    """y = shortcut + conv2(relu(bn2(conv1(a)))), a = relu(bn1(x)); shortcut = x, or conv1x1(a) where shapes differ."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, 1, 1, bias=False)
        changes = stride != 1 or channels_in != channels_out
        self.shortcut = nn.Conv2d(channels_in, channels_out, 1, stride, bias=False) if changes else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x (n, C, H, W) -> (n, C', H/stride, W/stride)."""
        active = F.relu(self.bn1(x))
        shortcut = x if self.shortcut is None else self.shortcut(active)
        residual: torch.Tensor = self.conv2(F.relu(self.bn2(self.conv1(active))))
        return residual + shortcut


def wrn16_4(image_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """Three stages of two blocks with 64, 128 and 256 channels; images (n, C, H, W) -> logits (n, num_classes)."""
    layers: list[nn.Module] = [nn.Conv2d(image_shape[0], 16, 3, padding=1, bias=False)]
    channels = 16
    for stage, width in enumerate((64, 128, 256)):
        for block in range(2):
            layers.append(PreActivationBlock(channels, width, 2 if stage and not block else 1))
            channels = width
    tail = [nn.BatchNorm2d(channels), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    net = nn.Sequential(*layers, *tail, nn.Linear(channels, num_classes))
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return net
