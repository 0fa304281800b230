"""What every framework starts from, as files of numpy's: initial weights, normalised examples, targets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from batchscale.build.inputs import make_normalizer
from batchscale.build.network import build_model
from batchscale.data.examples import Examples, Splits
from batchscale.errors import DataError
from batchscale.recipe import Recipe
from batchscale.structure import IGNORED


def export(recipe: Recipe, dataset: Splits, folder: Path) -> np.ndarray[Any, Any]:
    """Write weights.npz, {train,test}-images.npy (N, C, H, W) float32 and {train,test}-targets.npy.

    Args:
        recipe: comparable.
        dataset: of it.
        folder: an empty one.

    Returns:
        The targets of the test set.

    Raises:
        DataError: pixels without a class, which not every framework leaves out of a mean.
    """
    weights = build_model(recipe, dataset).state_dict()
    with (folder / "weights.npz").open("wb") as file:
        np.savez(file, **{name: tensor.numpy() for name, tensor in weights.items()})
    normalize = make_normalizer(recipe, dataset, False, torch.device("cpu"))
    for part, examples in (("train", dataset.train), ("test", dataset.test)):
        images, targets = _whole(examples)
        if recipe.task == "segmentation" and (targets == IGNORED).any():
            raise DataError("data: masks with pixels of no class: bench frameworks needs a class for every pixel")
        np.save(folder / f"{part}-images.npy", np.ascontiguousarray(normalize(images).float().numpy()))
        np.save(folder / f"{part}-targets.npy", targets.numpy())
    return np.asarray(np.load(folder / "test-targets.npy"))


def _whole(examples: Examples) -> tuple[torch.Tensor, torch.Tensor]:
    images, targets = examples.part(slice(None))
    assert isinstance(images, torch.Tensor)
    assert isinstance(targets, torch.Tensor)
    return images, targets
