"""Stripes that lie or stand, under noise: two classes that are made, not read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from batchscale.data import Dataset
from batchscale.data.source import Source

_SIDE, _TRAIN, _TEST = 8, 512, 128


@dataclass(frozen=True)
class StripesSource(Source):
    """The data set; its files are none."""

    def load(self, folder: Path | None) -> Dataset:
        """Images uint8 (N, 1, 8, 8), labels 0 (lying) or 1 (standing)."""
        random = np.random.default_rng(0)
        labels = random.integers(0, 2, _TRAIN + _TEST)
        lines = (np.arange(_SIDE)[None] + random.integers(0, 4, (len(labels), 1))) // 2 % 2 * 160
        lying = np.repeat(lines[:, :, None], _SIDE, axis=2)
        images = np.where(labels[:, None, None] == 0, lying, lying.swapaxes(1, 2))
        noisy = (images + random.integers(0, 96, images.shape)).astype(np.uint8)[:, None]
        pixels, classes = torch.from_numpy(noisy), torch.from_numpy(labels)
        return Dataset(self.name, pixels[:_TRAIN], classes[:_TRAIN], pixels[_TRAIN:], classes[_TRAIN:], 2)

    def fetch(self, into: Path) -> Path:
        """Nothing to download."""
        return into


STRIPES = StripesSource("example_stripes", 2, mean=(127.5,), std=(84.7,))
