"""Scenes of scikit-learn's handwritten digits: several on one picture, with the class of every pixel, or boxes.

No files.

A scene of 32 x 32 has four cells of 16 x 16; a digit of 8 x 8 stands in each of some cells, anywhere inside it. Which
digits, cells and places is drawn by key, so the scenes are the same on every machine. Training scenes hold the training
digits alone: no test digit is seen in training.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch

from batchscale.data.boxes.boxes import Photograph
from batchscale.data.examples import Splits, TensorExamples
from batchscale.data.image.digits import load_digits
from batchscale.randomness import integers, key

SIZE, CLASSES = 32, 11
NUM_TRAIN, NUM_TEST = 800, 200

# Mean and deviation of the training scenes, to one rounding.
SCENES_MEAN, SCENES_STD = (13.532208251953126,), (48.05650919904646,)

_CELL, _DIGIT = 16, 8
_INK = 60  # of 240: paler pixels are background
_KEYS = {"train": key(32, 1), "test": key(32, 2)}  # another one is another data set


def segmented_digits() -> Splits:
    """Scenes with masks: images uint8 (N, 1, 32, 32), masks uint8 (N, 32, 32), 0 background, 1 + d the digit d."""
    parts = {part: TensorExamples(scenes, masks) for part, (scenes, masks, _) in _parts().items()}
    return Splits("digits_scenes", parts["train"], parts["test"], CLASSES)


def boxed_digits(with_masks: bool) -> tuple[list[Photograph], list[Photograph]]:
    """The same scenes, training and test part, with a box around every digit's ink; some have none.

    Args:
        with_masks: the ink of every digit, too.
    """
    train, test = (list(_photographs(part, *drawn, with_masks)) for part, drawn in _parts().items())
    return train, test


Window = tuple[int, slice, slice]
"""Scene, rows and columns of a digit."""


def _parts() -> dict[str, tuple[torch.Tensor, torch.Tensor, list[Window]]]:
    digits = load_digits()
    return {
        "train": _scenes(_KEYS["train"], digits.train_images[:, 0], digits.train_labels, NUM_TRAIN),
        "test": _scenes(_KEYS["test"], digits.test_images[:, 0], digits.test_labels, NUM_TEST),
    }


def _scenes(
    stream: int, images: torch.Tensor, labels: torch.Tensor, count: int
) -> tuple[torch.Tensor, torch.Tensor, list[Window]]:
    scenes = torch.zeros((count, 1, SIZE, SIZE), dtype=torch.uint8)
    masks = torch.zeros((count, SIZE, SIZE), dtype=torch.uint8)
    per_side = SIZE // _CELL
    cells = np.arange(count * per_side**2)
    free = _CELL - _DIGIT + 1
    windows = []
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
        windows.append(window)
    return scenes, masks, windows


def _photographs(
    part: str, scenes: torch.Tensor, masks: torch.Tensor, windows: list[Window], with_masks: bool
) -> Iterator[Photograph]:
    of_scene: list[list[Window]] = [[] for _ in scenes]
    for window in windows:
        of_scene[window[0]].append(window)
    for number, digits in enumerate(of_scene):
        instances = torch.zeros((len(digits), SIZE, SIZE), dtype=torch.uint8)
        for instance, (_, *place) in zip(instances, digits, strict=True):
            instance[tuple(place)] = masks[number][tuple(place)] > 0
        yield Photograph(
            f"{part} {number}",
            (SIZE, SIZE),
            torch.tensor([_extent(instance) for instance in instances], dtype=torch.float32).view(-1, 4),
            torch.tensor([int(masks[window].max()) for window in digits], dtype=torch.int64),
            torch.zeros(len(digits), dtype=torch.bool),
            partial(scenes.__getitem__, number),
            partial(torch.clone, instances) if with_masks else None,
        )


def _extent(mask: torch.Tensor) -> list[int]:
    """x1, y1, x2, y2 of what is not zero."""
    rows, columns = (mask.amax(axis).nonzero().flatten().tolist() for axis in (1, 0))
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
