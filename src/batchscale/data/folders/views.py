"""What a network is shown of an image: the scale-and-aspect crop in training, the centre in evaluation.

area = u_1 H W, u_1 in [0.08, 1);   log aspect = u_2 uniform between log 3/4 and log 4/3
width = round(sqrt(area aspect)), height = round(sqrt(area / aspect)), at a uniform place; ten tries, else the centre

Source: Szegedy et al. 2015, "Going deeper with convolutions", section 6; Goyal et al. 2017, section 5.1; the ten
tries, the log and the centre are torchvision's RandomResizedCrop.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from batchscale.data.folders.jpeg import View

ViewOf = Callable[[int, int], View]
"""The view of an image of (height, width)."""

TRIES = 10
DRAWS = 2 * TRIES + 2
"""Uniform numbers of one crop: area and aspect of each try, then top and left."""

_SMALLEST_AREA = 0.08
_ASPECTS = (3 / 4, 4 / 3)
_SHORT_SIDE = 256 / 224  # of the evaluated image, in units of what is cut out of its centre


def scale_and_aspect(draws: npt.NDArray[np.float64], height: int, width: int, size: int) -> View:
    """The training crop of an image, resized to size x size.

    Args:
        draws: (DRAWS,) in [0, 1).
        height, width: of the image.
        size: of the result.
    """
    low, high = math.log(_ASPECTS[0]), math.log(_ASPECTS[1])
    for attempt in range(TRIES):
        area = height * width * (_SMALLEST_AREA + (1 - _SMALLEST_AREA) * draws[2 * attempt])
        aspect = math.exp(low + (high - low) * draws[2 * attempt + 1])
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            top, left = int(draws[-2] * (height - h + 1)), int(draws[-1] * (width - w + 1))
            return View(top, left, h, w, size, size)
    w, h = min(width, round(height * _ASPECTS[1])), min(height, round(width / _ASPECTS[0]))
    w, h = max(w, 1), max(h, 1)
    return View((height - h) // 2, (width - w) // 2, h, w, size, size)


def centre(height: int, width: int, size: int) -> View:
    """The evaluated part: short side to size x 256 / 224, the size x size in the middle of that.

    Args:
        height, width: of the image.
        size: of the result.

    Source: Goyal et al. 2017, section 5.1 (224 of 256).
    """
    short = round(size * _SHORT_SIDE)
    if height <= width:
        h, w = short, int(short * width / height)
    else:
        h, w = int(short * height / width), short
    return View(0, 0, height, width, h, w, round((h - size) / 2), round((w - size) / 2))
