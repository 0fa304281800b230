"""A recipe's augmentation as other libraries' users write it: crop, mirror, floats, mean and deviation.

Source: docs.pytorch.org/vision/stable/transforms.html; pytorch/vision references/classification/presets.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torchvision import transforms
from torchvision.transforms import v2

from batchscale.bench.data.assignment import DataAssignment

_AREAS, _ASPECTS = (0.08, 1.0), (3 / 4, 4 / 3)  # of a crop: RandomResizedCrop's own
_SHORT_SIDE = 256 / 224  # of an image whose centre is cut out, in units of that


def _geometry(words: Any, assignment: DataAssignment) -> list[Any]:
    """Crop and mirror by torchvision.transforms or its v2, which name them alike."""
    augment, (_, height, width) = assignment.recipe.data.augment, assignment.dataset.image_shape
    steps: list[Any] = []
    if augment.crop == "scale-aspect":
        steps.append(words.RandomResizedCrop(height))
    elif augment.crop == "padded":
        steps.append(words.RandomCrop((height, width), padding=augment.padding))
    elif assignment.on_disk:
        steps += [words.Resize(round(height * _SHORT_SIDE)), words.CenterCrop(height)]
    if augment.flip:
        steps.append(words.RandomHorizontalFlip())
    return steps


def of_pil(assignment: DataAssignment) -> Callable[[Any], torch.Tensor]:
    """PIL's image -> floats (C, H, W), normalised."""
    steps = [
        *_geometry(transforms, assignment),
        transforms.ToTensor(),
        transforms.Normalize(assignment.mean, assignment.std),
    ]
    transform: Callable[[Any], torch.Tensor] = transforms.Compose(steps)
    return transform


def of_tensor(assignment: DataAssignment) -> Callable[[torch.Tensor], torch.Tensor]:
    """uint8 (C, H, W) -> floats (C, H, W), normalised."""
    steps = [
        *_geometry(v2, assignment),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(assignment.mean, assignment.std),
    ]
    transform: Callable[[torch.Tensor], torch.Tensor] = v2.Compose(steps)
    return transform


def of_opencv(assignment: DataAssignment) -> Callable[[npt.NDArray[np.uint8]], torch.Tensor]:
    """uint8 (H, W, 3) -> floats (3, H, W), normalised; resized by OpenCV's two taps, which are not antialiased."""
    import cv2

    augment, size = assignment.recipe.data.augment, assignment.dataset.image_shape[1]
    normalize = v2.Normalize(assignment.mean, assignment.std)

    def crop(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        if augment.crop == "scale-aspect":
            whole = torch.empty(1).expand(3, *image.shape[:2])  # its size is what is asked for
            top, left, height, width = transforms.RandomResizedCrop.get_params(whole, _AREAS, _ASPECTS)
            return np.asarray(cv2.resize(image[top : top + height, left : left + width], (size, size)))
        scale = round(size * _SHORT_SIDE) / min(image.shape[:2])
        height, width = round(image.shape[0] * scale), round(image.shape[1] * scale)
        top, left = (height - size) // 2, (width - size) // 2
        return np.asarray(cv2.resize(image, (width, height)))[top : top + size, left : left + size]

    def transform(image: npt.NDArray[np.uint8]) -> torch.Tensor:
        pixels = crop(image)
        if augment.flip and torch.rand(()) < 0.5:
            pixels = cv2.flip(pixels, 1)
        floats: torch.Tensor = normalize(torch.from_numpy(pixels).permute(2, 0, 1).float().div_(255))
        return floats

    return transform
