"""Passes as the network gets them: bytes made into floats, on the device of the run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from batchscale.structure import mapped

_CACHED_NUMBERS = 1 << 18  # normalised at once: 1 MiB of float32


@dataclass(frozen=True)
class Batch:
    """The examples of one pass: inputs as the network gets them, such as float (m, C, H, W), and their targets."""

    inputs: Any
    targets: Any


class Normalizer:
    """(x - mean) / std for each channel, of uint8 images; floating images are only cast.

    Args:
        mean, std: for each channel, in 0..255 units.
        dtype: of the result.
        memory_format: of the result.
        device: of the result.
    """

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        dtype: torch.dtype,
        memory_format: torch.memory_format,
        device: torch.device,
    ) -> None:
        shape = (1, len(mean), 1, 1)
        self._mean = torch.tensor(mean, dtype=dtype, device=device).view(shape)
        self._scale = (1.0 / torch.tensor(std, dtype=torch.float64)).to(device, dtype).view(shape)
        self._dtype, self._format, self.device = dtype, memory_format, device

    def __call__(self, inputs: Any) -> Any:
        """Inputs of any structure -> fresh tensors on the device.

        uint8 (m, C, H, W), or (C, H, W) in a list, is normalised, floating (m, ...) only cast; other whole numbers,
        such as tokens, stay as they are.
        """
        return mapped(self._tensor, inputs)

    def _tensor(self, images: torch.Tensor) -> torch.Tensor:
        if images.dtype != torch.uint8:
            return images.to(self.device, self._dtype if images.is_floating_point() else None, copy=True)
        if images.ndim == 3:
            return self._tensor(images[None])[0]
        images = images.to(self.device, non_blocking=True)
        if self._format is not torch.channels_last or images.shape[1] == 1:
            return images.to(self._dtype, memory_format=self._format).sub_(self._mean).mul_(self._scale)
        return self._whole_rows(images)

    def _whole_rows(self, images: torch.Tensor) -> torch.Tensor:
        """The same numbers with channels last: on rows of W C numbers, where kernels vectorise (not on C numbers), and
        on so few images at once that they stay in the processor's cache."""
        channels, width = images.shape[1], images.shape[3]
        rows = images.permute(0, 2, 3, 1).flatten(2)
        normalized = torch.empty(rows.shape, dtype=self._dtype, device=self.device)
        mean, scale = self._mean.flatten().repeat(width), self._scale.flatten().repeat(width)
        at_once = len(rows) if normalized.is_cuda else max(_CACHED_NUMBERS // rows[0].numel(), 1)
        for pixels, out in zip(torch.split(rows, at_once), torch.split(normalized, at_once), strict=True):
            out.copy_(pixels).sub_(mean).mul_(scale)
        return normalized.view(*rows.shape[:2], width, channels).permute(0, 3, 1, 2)
