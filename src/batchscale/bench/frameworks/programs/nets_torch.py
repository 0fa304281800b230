"""The two nets as plain torch modules, by the names of the weights that are exported."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from protocol import ProcessWork
from torch import nn


def net_of(work: ProcessWork) -> nn.Module:
    """With the initial weights."""
    weights = {name: torch.from_numpy(array) for name, array in work.weights().items()}
    net = _cnn(weights) if work.net == "cnn" else _UNet(weights)
    net.load_state_dict(weights)
    return net


def loss_of(net: str) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Logits and targets of m examples -> the mean loss."""
    if net == "cnn":
        return F.cross_entropy
    return lambda logits, masks: F.binary_cross_entropy_with_logits(logits[:, 0], masks.to(logits.dtype))


def _conv(incoming: int, width: int) -> list[nn.Module]:
    return [nn.Conv2d(incoming, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]


def _cnn(weights: dict[str, torch.Tensor]) -> nn.Sequential:
    channels = weights["0.weight"].shape[1]
    classes, last = weights["13.weight"].shape
    return nn.Sequential(
        *_conv(channels, 16), nn.MaxPool2d(2), *_conv(16, 32), nn.MaxPool2d(2), *_conv(32, 64),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(last, classes),
    )  # fmt: skip


class _UNet(nn.Module):
    def __init__(self, weights: dict[str, torch.Tensor]) -> None:
        super().__init__()
        outputs, width = weights["last.weight"].shape[:2]
        levels = 1 + sum(name.startswith("up.") and name.endswith(".weight") for name in weights)
        widths = [width << level for level in range(levels)]
        incoming = [weights["down.0.0.weight"].shape[1], *widths[:-1]]
        self.down = nn.ModuleList(
            nn.Sequential(*_conv(a, b), *_conv(b, b)) for a, b in zip(incoming, widths, strict=True)
        )
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * w, w, 2, stride=2) for w in reversed(widths[:-1]))
        self.join = nn.ModuleList(nn.Sequential(*_conv(2 * w, w), *_conv(w, w)) for w in reversed(widths[:-1]))
        self.last = nn.Conv2d(width, outputs, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features, levels = images, []
        for number, block in enumerate(self.down):
            features = block(F.max_pool2d(features, 2) if number else features)
            levels.append(features)
        for up, join, same in zip(self.up, self.join, reversed(levels[:-1]), strict=True):
            features = join(torch.cat([same, up(features)], 1))
        logits: torch.Tensor = self.last(features)
        return logits
