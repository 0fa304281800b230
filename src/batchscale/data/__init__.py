"""Data sets: official files -> uint8 images and labels in memory, the epoch's one shuffle, augmentation, the feed."""

from __future__ import annotations

from batchscale.data.dataset import Dataset
from batchscale.data.sources import DATASETS, load_dataset

__all__ = ["DATASETS", "Dataset", "load_dataset"]
