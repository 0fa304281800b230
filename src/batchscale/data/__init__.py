"""Data sets: files -> uint8 images and labels, in memory or on disk, one shuffle an epoch, augmentation, the feed."""

from __future__ import annotations

from typing import Any

from batchscale.data.examples import Splits
from batchscale.data.image.dataset import Dataset
from batchscale.data.source import Reading
from batchscale.data.sources import DATASETS, load_dataset, open_dataset

OwnData = Dataset | Splits | tuple[Any, Any]
"""What may be handed in from Python: images with labels, examples of any structure, or a pair of parts (``own.py``)."""

__all__ = ["DATASETS", "Dataset", "OwnData", "Reading", "load_dataset", "open_dataset"]
