"""The 1,797 images of handwritten digits that come with scikit-learn: no files, for trying things out.

Source: Alpaydin, Kaynak 1998, "Optical recognition of handwritten digits" (UCI), its test part, as in scikit-learn.
"""

from __future__ import annotations

import importlib

import numpy as np
import torch

from batchscale.data.dataset import Dataset
from batchscale.errors import DataError
from batchscale.randomness import key, shuffled

NUM_TRAIN = 1437  # four fifths of 1,797
NUM_TEST = 360

_SHAPE = (NUM_TRAIN + NUM_TEST, 8, 8)
_SPLIT_KEY = key(1797, 1437, 360)  # any fixed key; another one is another data set
_SCALE = 15  # the values 0..16 become 0..240: nearly the range of a byte, and still exact


def split() -> tuple[torch.Tensor, torch.Tensor]:
    """Which images train and which test: one fixed shuffle of scikit-learn's order, cut once.

    Returns:
        int64 (1437,) and int64 (360,), numbers in [0, 1797).
    """
    order = torch.from_numpy(shuffled(_SPLIT_KEY, np.arange(_SHAPE[0]), _SHAPE[0]))
    return order[:NUM_TRAIN], order[NUM_TRAIN:]


def load_digits() -> Dataset:
    """The data set: 1,437 training and 360 test images, uint8 (N, 1, 8, 8) in 0..240.

    Raises:
        DataError: scikit-learn is not installed, or holds other images.
    """
    try:
        bunch = importlib.import_module("sklearn.datasets").load_digits()
    except ImportError as error:
        raise DataError(
            f"data.name='digits': scikit-learn cannot be imported ({error}): it brings the images; "
            f"install it (pip install scikit-learn), or choose another data set"
        ) from None
    images, labels = np.asarray(bunch.images), np.asarray(bunch.target)
    if images.shape != _SHAPE or labels.shape != _SHAPE[:1] or images.min() < 0 or images.max() > 16:
        raise DataError(
            f"data.name='digits': scikit-learn gives images {images.shape} in {images.min()}..{images.max()}: "
            f"must be {_SHAPE} in 0..16; install a scikit-learn release, or choose another data set"
        )
    pixels = torch.from_numpy((images * _SCALE).astype(np.uint8)).unsqueeze(1)
    classes = torch.from_numpy(labels.astype(np.int64))
    train, test = split()
    return Dataset("digits", pixels[train], classes[train], pixels[test], classes[test], num_classes=10)
