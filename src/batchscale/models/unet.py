"""U-Net: an encoder that halves height and width, a decoder that doubles them, each level joined to its like.

Level i has width 2^i channels, two 3 x 3 convolutions each followed by batch norm and ReLU; down by 2 x 2 max pooling,
up by a 2 x 2 transposed convolution. Convolutions are padded, so logits have the image's height and width; these must
be multiples of 2^(levels - 1).

Source: Ronneberger et al. 2015, with padding and with batch norm (Ioffe and Szegedy 2015), as usual today.
"""

from __future__ import annotations

import torch
from torch import nn

from batchscale.errors import RecipeError
from batchscale.models.taking import check_least


class UNet(nn.Module):
    """images (m, C, H, W) -> logits (m, outputs, H, W).

    Args:
        channels: C of an image.
        outputs: logits of a pixel.
        width: channels of the first level.
        levels: how many, the bottom included.
    """

    def __init__(self, channels: int, outputs: int, width: int, levels: int) -> None:
        super().__init__()
        widths = [width << level for level in range(levels)]
        self.down = nn.ModuleList(_double(a, b) for a, b in zip([channels, *widths[:-1]], widths, strict=True))
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * w, w, 2, stride=2) for w in reversed(widths[:-1]))
        self.join = nn.ModuleList(_double(2 * w, w) for w in reversed(widths[:-1]))
        self.last = nn.Conv2d(width, outputs, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits of every pixel."""
        features, levels = images, []
        for number, block in enumerate(self.down):
            features = block(nn.functional.max_pool2d(features, 2) if number else features)
            levels.append(features)
        for up, join, same_level in zip(self.up, self.join, reversed(levels[:-1]), strict=True):
            features = join(torch.cat([same_level, up(features)], 1))
        logits: torch.Tensor = self.last(features)
        return logits


def _double(channels: int, width: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for incoming in (channels, width):
        layers += [nn.Conv2d(incoming, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def unet(image_shape: tuple[int, ...], num_classes: int, *, width: int = 8, levels: int = 5) -> nn.Module:
    """A U-Net; by default the 8-16-32-64-128 channels of the published weak-scaling series.

    Args:
        image_shape: (C, H, W) of an image.
        num_classes: logits of a pixel.
        width: channels of the first level; 64 in the paper.
        levels: how many, the bottom included; 5 in the paper.

    Raises:
        RecipeError: height or width cannot be halved so often.
    """
    check_least(width=width, levels=levels)
    check_halves(image_shape, levels - 1, f"model.options.levels={levels}")
    return UNet(image_shape[0], num_classes, width, levels)


def check_halves(image_shape: tuple[int, ...], halvings: int, setting: str) -> None:
    """Raise unless height and width can be halved so often.

    Raises:
        RecipeError: names the setting, and what would do.
    """
    if any(size % (1 << halvings) for size in image_shape[1:]):
        height, width = image_shape[1:]
        raise RecipeError(
            f"{setting}: images of {height} x {width} are halved {halvings} times, so both must be multiples of "
            f"{1 << halvings}; crop or pad the images, or use fewer levels"
        )
