"""Tiramisu: a U-Net of dense blocks, FC-DenseNet 56, 67 and 103.

A dense block of l layers adds l times g channels, each layer from all channels before it: batch norm, ReLU, 3 x 3
convolution, dropout 0.2. Down: batch norm, ReLU, 1 x 1 convolution, dropout, 2 x 2 max pooling. Up: a 3 x 3 transposed
convolution of stride 2 of what the last block has added alone, joined to its level.

| net | layers of the blocks down, bottom, up | growth g | first channels |
|---|---|---|---|
| 56 | 4 4 4 4 4, 4, 4 4 4 4 4 | 12 | 48 |
| 67 | 5 5 5 5 5, 5, 5 5 5 5 5 | 16 | 48 |
| 103 | 4 5 7 10 12, 15, 12 10 7 5 4 | 16 | 48 |

Source: Jegou et al. 2017, "The One Hundred Layers Tiramisu", section 3 and table 2.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from batchscale.models.unet import check_halves

_FIRST_CHANNELS, _DROPOUT = 48, 0.2


class _Dense(nn.Module):
    """Layers that each see all channels before them; gives the channels that they add."""

    def __init__(self, channels: int, growth: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_layer(channels + number * growth, growth, 3) for number in range(layers))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        added: list[torch.Tensor] = []
        for layer in self.layers:
            added.append(layer(features))
            features = torch.cat([features, added[-1]], 1)
        return torch.cat(added, 1)


def _layer(channels: int, width: int, kernel: int) -> nn.Sequential:
    convolution = nn.Conv2d(channels, width, kernel, padding=kernel // 2)
    return nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(inplace=True), convolution, nn.Dropout(_DROPOUT))


class Tiramisu(nn.Module):
    """images (m, C, H, W) -> logits (m, outputs, H, W).

    Args:
        channels: C of an image.
        outputs: logits of a pixel.
        layers: of every dense block on the way down, then of the bottom's; the way up mirrors them.
        growth: g.
    """

    def __init__(self, channels: int, outputs: int, layers: Sequence[int], growth: int) -> None:
        super().__init__()
        *down, bottom = layers
        self.first = nn.Conv2d(channels, _FIRST_CHANNELS, 3, padding=1)
        self.down, self.reduce = nn.ModuleList(), nn.ModuleList()
        width, joined = _FIRST_CHANNELS, []
        for count in down:
            self.down.append(_Dense(width, growth, count))
            width += growth * count
            joined.append(width)
            self.reduce.append(nn.Sequential(_layer(width, width, 1), nn.MaxPool2d(2)))
        self.bottom = _Dense(width, growth, bottom)
        self.rise, self.up = nn.ModuleList(), nn.ModuleList()
        added = growth * bottom
        for count, skipped in zip(reversed(down), reversed(joined), strict=True):
            self.rise.append(nn.ConvTranspose2d(added, added, 3, stride=2, padding=1, output_padding=1))
            width = added + skipped
            self.up.append(_Dense(width, growth, count))
            added = growth * count
        self.last = nn.Conv2d(width + added, outputs, 1)  # of the last block all channels, not the new ones alone

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits of every pixel."""
        features, levels = self.first(images), []
        for block, reduce in zip(self.down, self.reduce, strict=True):
            levels.append(torch.cat([features, block(features)], 1))
            features = reduce(levels[-1])
        added = self.bottom(features)
        for rise, block, same_level in zip(self.rise, self.up, reversed(levels), strict=True):
            features = torch.cat([rise(added), same_level], 1)
            added = block(features)
        logits: torch.Tensor = self.last(torch.cat([features, added], 1))
        return logits


def _built(image_shape: tuple[int, ...], num_classes: int, layers: Sequence[int], growth: int) -> nn.Module:
    check_halves(image_shape, len(layers) - 1, "model.name=tiramisu")
    return Tiramisu(image_shape[0], num_classes, layers, growth)


def tiramisu56(image_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """FC-DenseNet 56: images (m, C, H, W) -> logits (m, num_classes, H, W)."""
    return _built(image_shape, num_classes, (4,) * 6, 12)


def tiramisu67(image_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """FC-DenseNet 67: images (m, C, H, W) -> logits (m, num_classes, H, W)."""
    return _built(image_shape, num_classes, (5,) * 6, 16)


def tiramisu103(image_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """FC-DenseNet 103: images (m, C, H, W) -> logits (m, num_classes, H, W)."""
    return _built(image_shape, num_classes, (4, 5, 7, 10, 12, 15), 16)
