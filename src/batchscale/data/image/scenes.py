"""Scenes of scikit-learn's handwritten digits: several on one picture, with the class of every pixel. No files.

A scene of 32 x 32 has four cells of 16 x 16; a digit of 8 x 8 stands in each of some cells, anywhere inside it. Which
digits, cells and places is drawn by key, so the scenes are the same on every machine. Training scenes hold the training
digits alone: no test digit is seen in training.
"""

from __future__ import annotations

import numpy as np
import torch

from batchscale.data.examples import Splits, TensorExamples
from batchscale.data.image.digits import load_digits
from batchscale.randomness import integers, key

SIZE, CLASSES = 32, 11
NUM_TRAIN, NUM_TEST = 800, 200

_CELL, _DIGIT = 16, 8
_INK = 60  # of 240: paler pixels are background
_KEYS = {"train": key(32, 1), "test": key(32, 2)}  # another one is another data set


def segmented_digits() -> Splits:
    """Scenes with masks: images uint8 (N, 1, 32, 32), masks uint8 (N, 32, 32), 0 background, 1 + d the digit d."""
    digits = load_digits()
    parts = {
        "train": _scenes(_KEYS["train"], digits.train_images[:, 0], digits.train_labels, NUM_TRAIN),
        "test": _scenes(_KEYS["test"], digits.test_images[:, 0], digits.test_labels, NUM_TEST),
    }
    return Splits("digits_scenes", parts["train"], parts["test"], CLASSES)


def _scenes(stream: int, images: torch.Tensor, labels: torch.Tensor, count: int) -> TensorExamples:
    scenes = torch.zeros((count, 1, SIZE, SIZE), dtype=torch.uint8)
    masks = torch.zeros((count, SIZE, SIZE), dtype=torch.uint8)
    per_side = SIZE // _CELL
    cells = np.arange(count * per_side**2)
    free = _CELL - _DIGIT + 1
    present = integers(key(stream, 0), cells, 4) > 0  # three cells of four
    chosen = integers(key(stream, 1), cells, len(images))
    tops, lefts = integers(key(stream, 2), cells, free), integers(key(stream, 3), cells, free)
    for cell in cells[present]:
        scene, place = divmod(int(cell), per_side**2)
        top = place // per_side * _CELL + int(tops[cell])
        left = place % per_side * _CELL + int(lefts[cell])
        digit, label = images[chosen[cell]], labels[chosen[cell]]
        window = (scene, slice(top, top + _DIGIT), slice(left, left + _DIGIT))
        scenes[:, 0][window] = digit
        masks[window] = torch.where(digit >= _INK, (label + 1).to(torch.uint8), torch.zeros((), dtype=torch.uint8))
    return TensorExamples(scenes, masks)
