"""A data set's official files as torchvision's own class wants to find them."""

from __future__ import annotations

import gzip
from pathlib import Path

from batchscale.data import DATASETS
from batchscale.system.disk import lay

_CLASSES = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "cifar10": "CIFAR10"}


def torchvision_name(data_name: str) -> str:
    """The class in torchvision.datasets for a recipe's data set, "" where there is none."""
    return _CLASSES.get(data_name, "")


def lay_out(data_name: str, folder: Path | None, into: Path) -> None:
    """Unpack or link the files so that torchvision's class reads them with root=into; nothing where it has no class.

    Args:
        data_name: of the recipe.
        folder: of the data sets, as --data names it.
        into: an empty folder.

    Raises:
        DataError: files are missing.
    """
    if not torchvision_name(data_name):
        return
    target = into / ("cifar-10-batches-py" if data_name == "cifar10" else f"{torchvision_name(data_name)}/raw")
    target.mkdir(parents=True)
    for path in DATASETS[data_name].locate(folder):
        if path.suffix == ".gz":
            (target / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
        else:
            lay(path.resolve(), target / path.name, "symbolic")
