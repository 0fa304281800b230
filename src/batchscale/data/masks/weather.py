"""Made-up climate fields of 16 channels with cyclones and rivers of vapour: the form of DeepCAM's data, no files.

A channel is noise on a coarse grid, made smooth by moving averages. A cyclone is a disc that lowers some channels and
raises others, most in its middle; a river is a band along a line that raises two. All is whole numbers drawn by key, so
the fields are the same on every machine. Nothing of the atmosphere is in them: they show that a net of this form
learns, and how fast it runs.

Source of the form: Kurth et al. 2018, "Exascale deep learning for climate analytics": 16 channels of 768 x 1152, masks
of background, tropical cyclones and atmospheric rivers. A field here has a sixteenth of their height and width.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from batchscale.data.examples import Splits, TensorExamples
from batchscale.randomness import integers, key

HEIGHT, WIDTH, CHANNELS, CLASSES = 48, 72, 16, 3
NUM_TRAIN, NUM_TEST = 128, 32

_KEYS = {"train": key(33, 1), "test": key(33, 2)}  # another one is another data set
_COARSE = 8  # pixels of a cell of the noise
_CYCLONES, _RIVERS = 4, 2  # of a field, at most; each is there in two of three cases
_STRENGTH = 90  # of 255
_CYCLONE, _RIVER = 1, 2

Field = npt.NDArray[np.int64]


def made_up_weather() -> Splits:
    """Fields uint8 (N, 16, 48, 72), masks uint8 (N, 48, 72): 0 background, 1 cyclone, 2 river."""
    train, test = (_fields(_KEYS[part], count) for part, count in (("train", NUM_TRAIN), ("test", NUM_TEST)))
    return Splits("deepcam_made_up", train, test, CLASSES)


def _fields(stream: int, count: int) -> TensorExamples:
    fields = torch.empty((count, CHANNELS, HEIGHT, WIDTH), dtype=torch.uint8)
    masks = torch.empty((count, HEIGHT, WIDTH), dtype=torch.uint8)
    for number in range(count):
        field, mask = _field(key(stream, number))
        fields[number], masks[number] = torch.from_numpy(field.astype(np.uint8)), torch.from_numpy(mask)
    return TensorExamples(fields, masks)


def _field(stream: int) -> tuple[Field, npt.NDArray[np.uint8]]:
    field = _smooth_noise(key(stream, 0))
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    for number in range(_RIVERS):
        depth = _river(key(stream, 1, number))
        mask[depth > 0] = _RIVER
        field[:2] += depth
    for number in range(_CYCLONES):
        depth = _cyclone(key(stream, 2, number))
        mask[depth > 0] = _CYCLONE
        field[2:5] -= depth
        field[5:8] += depth
    return field.clip(0, 255), mask


def _smooth_noise(stream: int) -> Field:
    """(16, H, W) around 128."""
    rows, columns = HEIGHT // _COARSE + 2, WIDTH // _COARSE + 2
    noise = integers(stream, np.arange(CHANNELS * rows * columns), 256).reshape(CHANNELS, rows, columns)
    field = noise.repeat(_COARSE, 1).repeat(_COARSE, 2)
    for axis, length in ((1, HEIGHT), (2, WIDTH)):
        sums = np.cumsum(field, axis)
        ends, starts = np.arange(length) + _COARSE, np.arange(length)
        field = (sums.take(ends, axis) - sums.take(starts, axis)) // _COARSE
    return field


def _grid() -> tuple[Field, Field]:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return y.astype(np.int64), x.astype(np.int64)


def _cyclone(stream: int) -> Field:
    """(H, W): how much a disc changes a pixel; 0 outside of it."""
    is_there, top, left, size = (
        int(integers(stream, np.array([draw]), bound)[0]) for draw, bound in enumerate((3, HEIGHT, WIDTH, 4))
    )
    y, x = _grid()
    radius_squared = (3 + size) ** 2
    inside = radius_squared - (y - top) ** 2 - (x - left) ** 2
    return np.where(inside > 0, _STRENGTH // 2 + _STRENGTH * inside // (2 * radius_squared), 0) * (is_there > 0)


def _river(stream: int) -> Field:
    """(H, W): how much a band along a line changes a pixel; 0 outside of it."""
    is_there, top, left, down, along, width = (
        int(integers(stream, np.array([draw]), bound)[0])
        for draw, bound in enumerate((3, HEIGHT // 2, WIDTH // 2, HEIGHT // 2, WIDTH // 2, 3))
    )
    down, along = down + 4, along + 12
    y, x = _grid()
    length = down**2 + along**2
    forward = (y - top) * down + (x - left) * along
    sideways = (y - top) * along - (x - left) * down
    inside = (forward >= 0) & (forward <= length) & (sideways**2 <= (width + 1) ** 2 * length)
    return np.where(inside, _STRENGTH, 0) * (is_there > 0)
