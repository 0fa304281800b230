"""Faster R-CNN on a ResNet-18 with group norm and a feature pyramid, to be trained from random weights.

Blocks of two 3 x 3 convolutions, two a stage, of w, 2w, 4w and 8w channels at strides 4, 8, 16, 32; group norm in the
place of batch norm, so no image's normalisation hangs on another's. Anchors of one size a level, three aspects.

Source: Ren et al. 2015; Lin et al. 2017 (FPN); Wu and He 2018 (group norm); He et al. 2019, "Rethinking ImageNet
Pre-training" (group norm from random weights).
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn

from batchscale.errors import RecipeError
from batchscale.models.taking import check_least

_GROUP_CHANNELS = 8
_ASPECTS = (0.5, 1.0, 2.0)


class NormedBlock(nn.Module):
    """y = relu(norm(conv(relu(norm(conv(x))))) + shortcut(x)), the shortcut a 1 x 1 convolution where shapes differ."""

    def __init__(self, incoming: int, channels: int, stride: int) -> None:
        super().__init__()
        self.first = _convolution(incoming, channels, 3, stride)
        self.second = _convolution(channels, channels, 3, 1)
        self.shortcut = (
            _convolution(incoming, channels, 1, stride) if stride > 1 or incoming != channels else nn.Identity()
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x (m, C, H, W) -> (m, C', H/stride, W/stride)."""
        y: torch.Tensor = self.second(self.first(x).relu()) + self.shortcut(x)
        return y.relu()


class Pyramid(nn.Module):
    """images (m, C, H, W) -> feature maps by name, of strides 4, 8, 16, 32 and equal channels.

    Args:
        channels: C of an image.
        width: channels of the first stage.
        out_channels: of every level.
    """

    def __init__(self, channels: int, width: int, out_channels: int) -> None:
        super().__init__()
        from torchvision.ops import FeaturePyramidNetwork

        self.stem = nn.Sequential(_convolution(channels, width, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
        widths = [width << stage for stage in range(4)]
        stages = zip([width, *widths[:-1]], widths, (1, 2, 2, 2), strict=True)
        self.stages = nn.ModuleList(
            nn.Sequential(NormedBlock(incoming, outgoing, stride), NormedBlock(outgoing, outgoing, 1))
            for incoming, outgoing, stride in stages
        )
        self.fpn = FeaturePyramidNetwork(widths, out_channels)
        self.out_channels = out_channels

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """The levels, finest first."""
        features, levels = self.stem(images), OrderedDict()
        for number, stage in enumerate(self.stages):
            features = stage(features)
            levels[str(number)] = features
        joined: dict[str, torch.Tensor] = self.fpn(levels)
        return joined


def _check_width(width: int) -> None:
    if any((width << stage) % _groups(width << stage) for stage in range(4)):
        raise RecipeError(
            f"model.options.width={width}: group norm splits a stage's channels into groups of {_GROUP_CHANNELS}: "
            f"use a multiple of {_GROUP_CHANNELS}"
        )


def faster_rcnn_resnet18(
    image_shape: tuple[int, ...],
    num_classes: int,
    *,
    width: int = 64,
    pyramid: int = 64,
    hidden: int = 256,
    anchor: int = 16,
    proposals: int = 300,
    sampled: int = 128,
) -> nn.Module:
    """Faster R-CNN; images are expected normalised, and are resized only where they are larger or smaller than these.

    Args:
        image_shape: (C, H, W) that images are resized to fit into, if they do not already.
        num_classes: the background included.
        width: channels of the first stage; 64 of a ResNet-18.
        pyramid: channels of every level.
        hidden: units of the box head's two layers.
        anchor: the side of the finest level's anchors, in pixels; doubled from level to level.
        proposals: of an image, that are left after suppression.
        sampled: proposals of an image that the box head learns from.

    Raises:
        RecipeError: an option below 1, or channels that group norm cannot split evenly.
    """
    check_least(width=width, pyramid=pyramid, hidden=hidden, anchor=anchor, proposals=proposals, sampled=sampled)
    _check_width(width)
    from torchvision.models.detection import FasterRCNN
    from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
    from torchvision.models.detection.rpn import AnchorGenerator
    from torchvision.ops import MultiScaleRoIAlign

    channels, height, columns = image_shape
    sizes = tuple((anchor << level,) for level in range(4))
    model: nn.Module = FasterRCNN(
        Pyramid(channels, width, pyramid),
        min_size=min(height, columns),
        max_size=max(height, columns),
        image_mean=[0.0] * channels,
        image_std=[1.0] * channels,
        rpn_anchor_generator=AnchorGenerator(sizes, (_ASPECTS,) * len(sizes)),
        rpn_pre_nms_top_n_train=2 * proposals,
        rpn_pre_nms_top_n_test=2 * proposals,
        rpn_post_nms_top_n_train=proposals,
        rpn_post_nms_top_n_test=proposals,
        box_roi_pool=MultiScaleRoIAlign([str(level) for level in range(4)], 7, 2),
        box_head=TwoMLPHead(pyramid * 49, hidden),
        box_predictor=FastRCNNPredictor(hidden, num_classes),
        box_batch_size_per_image=sampled,
    )
    return model


def _convolution(incoming: int, channels: int, size: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(incoming, channels, size, stride, size // 2, bias=False), nn.GroupNorm(_groups(channels), channels)
    )


def _groups(channels: int) -> int:
    return max(channels // _GROUP_CHANNELS, 1)
