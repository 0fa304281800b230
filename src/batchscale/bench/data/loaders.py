"""The peers: a torch.utils.data.DataLoader of workers that stay, over images as libraries' documentation reads them.

Images on disk are a sample that stands for a longer data set: its end ends no epoch, at which a loader would run dry.
In memory the data set is the real one, and so are its epochs.

Source: docs.pytorch.org/vision/stable/datasets.html (ImageFolder), .../io.html and meta-pytorch.org/torchcodec
(decoders); docs.pytorch.org/docs/stable/data.html (num_workers, persistent_workers).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torchvision
from torch.utils.data import DataLoader, Dataset, RandomSampler, Subset, TensorDataset
from torchvision.datasets import ImageFolder

from batchscale.bench.data.assignment import DataAssignment
from batchscale.bench.data.transforms import of_opencv, of_pil, of_tensor
from batchscale.data.examples import Pairs
from batchscale.launch.signals import die_with_parent

_ENDLESS_IMAGES = 1 << 60


def _end_with(parent: int, worker: int) -> None:
    """A loader worker that is stopped (it is another one's turn) would outlive a killed parent."""
    die_with_parent(parent)


def _loaded(assignment: DataAssignment, data: Dataset[Any], **options: Any) -> Iterator[Pairs]:
    loader: DataLoader[Any] = DataLoader(
        data,
        batch_size=assignment.minibatch_images,
        num_workers=assignment.threads,
        drop_last=True,
        persistent_workers=True,
        multiprocessing_context="fork",  # what Linux had for long: a worker's parent is this process
        worker_init_fn=partial(_end_with, os.getpid()),
        **options,
    )
    return _endless(loader)


def _endless(loader: DataLoader[Any]) -> Iterator[Pairs]:
    while True:
        yield from loader


def _folders(assignment: DataAssignment, transform: Callable[[Any], torch.Tensor], **read: Any) -> Iterator[Pairs]:
    """train/<class>/<image>, each image once in every pass over them."""
    data = ImageFolder(f"{assignment.data_folder}/train", transform, **read)
    return _loaded(assignment, data, sampler=RandomSampler(data, num_samples=_ENDLESS_IMAGES))


def pil(assignment: DataAssignment) -> Iterator[Pairs]:
    """ImageFolder's own loader is PIL's."""
    return _folders(assignment, of_pil(assignment))


def torchvision_io(assignment: DataAssignment) -> Iterator[Pairs]:
    """torchvision.io.decode_image, transforms.v2."""
    return _folders(assignment, of_tensor(assignment), loader=partial(torchvision.io.decode_image, mode="RGB"))


def torchcodec(assignment: DataAssignment) -> Iterator[Pairs]:
    """torchcodec.decoders.decode_image, transforms.v2."""
    from torchcodec.decoders import decode_image

    return _folders(assignment, of_tensor(assignment), loader=decode_image)


def opencv(assignment: DataAssignment) -> Iterator[Pairs]:
    """OpenCV, each worker on its one thread."""
    import cv2

    cv2.setNumThreads(0)
    how = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    return _folders(
        assignment, of_opencv(assignment), loader=lambda path: cv2.cvtColor(cv2.imread(path, how), cv2.COLOR_BGR2RGB)
    )


def torchvision_class(assignment: DataAssignment) -> Iterator[Pairs]:
    """torchvision's class of the data set, images by PIL."""
    kind = getattr(torchvision.datasets, assignment.torchvision_name)
    data: Dataset[Any] = kind(root=assignment.torchvision_root, train=True, transform=of_pil(assignment))
    images = len(assignment.dataset.train)
    if images < len(data):  # type: ignore[arg-type]
        data = Subset(data, range(images))
    return _loaded(assignment, data, shuffle=True)


class _Augmented(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Tensors in memory, each image augmented by itself."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor, transform: Callable[[torch.Tensor], torch.Tensor]):
        self._images, self._labels, self._transform = images, labels, transform

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, image: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self._transform(self._images[image]), self._labels[image]


def tensor(assignment: DataAssignment) -> Iterator[Pairs]:
    """Tensors in memory: normalised floats, or, where the recipe augments, uint8 and transforms.v2 for each image.

    A TensorDataset is read without workers, as in the tutorials: with two it was 5 times slower (28 x 28 images).
    """
    augment = assignment.recipe.data.augment
    if augment.flip or augment.crop != "none":
        return _loaded(
            assignment, _Augmented(*assignment.dataset.train.part(slice(None)), of_tensor(assignment)), shuffle=True
        )
    data = TensorDataset(*assignment.normalised())
    return _endless(DataLoader(data, batch_size=assignment.minibatch_images, shuffle=True, drop_last=True))


LOADERS: dict[str, Callable[[DataAssignment], Iterator[Pairs]]] = {
    "dataloader_pil": pil,
    "dataloader_v2": torchvision_io,
    "dataloader_torchcodec": torchcodec,
    "dataloader_opencv": opencv,
    "dataloader_torchvision": torchvision_class,
    "dataloader_tensor": tensor,
}
"""Name -> minibatches without end."""
