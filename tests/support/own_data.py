"""Datasets of one's own, as somebody would write them."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch


class Points(torch.utils.data.Dataset[Any]):
    """Points on a plane, moved a little at every draw by all three global generators; two classes."""

    classes = ("apart", "alike")

    def __init__(self, count: int, seed: int = 0) -> None:
        self.points = torch.randn(count, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, int]:
        if not 0 <= number < len(self):
            raise IndexError(number)
        point = self.points[number]
        moved = point + 0.1 * torch.randn(2, dtype=torch.float64) + 0.1 * random.random() + 0.1 * np.random.rand()
        return moved, int(point[0] * point[1] > 0)
