"""The 1,797 images of handwritten digits that come with scikit-learn: no files, for trying things out.

Source: Alpaydin, Kaynak 1998, "Optical recognition of handwritten digits" (UCI), its test part, as in scikit-learn.
"""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path

import numpy as np
import torch

from batchscale.data.image.dataset import Dataset
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


def _rows() -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """(1797, 65): an image's pixels, then its digit; from scikit-learn's file, as importing it takes 2 s a process.

    Where a release keeps the file elsewhere, through its import all the same.
    """
    package = importlib.util.find_spec("sklearn")
    if package is None or not package.submodule_search_locations:
        raise DataError(
            "data.name='digits': scikit-learn is not installed: it brings the images; install it "
            "(pip install scikit-learn), or choose another data set"
        )
    file = Path(package.submodule_search_locations[0], "datasets", "data", "digits.csv.gz")
    try:
        return np.loadtxt(file, delimiter=",")
    except (OSError, EOFError, ValueError):
        return _imported()


def _imported() -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    try:
        bunch = importlib.import_module("sklearn.datasets").load_digits()
    except (ImportError, OSError, EOFError, ValueError) as error:
        raise DataError(
            f"data.name='digits': scikit-learn cannot give its images ({error}); install a scikit-learn release, or "
            f"choose another data set"
        ) from None
    return np.column_stack([bunch.data, bunch.target])


def load_digits() -> Dataset:
    """The data set: 1,437 training and 360 test images, uint8 (N, 1, 8, 8) in 0..240.

    Raises:
        DataError: scikit-learn is not installed, or holds other images.
    """
    rows = _rows()
    if rows.shape != (_SHAPE[0], 65) or not ((rows >= 0) & (rows <= 16)).all():
        raise DataError(
            f"data.name='digits': scikit-learn gives {rows.shape} numbers: must be {(_SHAPE[0], 65)} in 0..16; "
            f"install a scikit-learn release, or choose another data set"
        )
    pixels = torch.from_numpy((rows[:, :-1] * _SCALE).astype(np.uint8)).reshape(-1, 1, *_SHAPE[1:])
    classes = torch.from_numpy(rows[:, -1].astype(np.int64))
    train, test = split()
    return Dataset("digits", pixels[train], classes[train], pixels[test], classes[test], num_classes=10)
