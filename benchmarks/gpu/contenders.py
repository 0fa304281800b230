"""Who trains: plain PyTorch as its documentation puts it together, and batchscale in its ways."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F

from batchscale.build.build import build
from batchscale.build.inputs import load_data
from batchscale.comm import World
from batchscale.data.feed import Feed
from batchscale.models import named_model
from batchscale.recipe import recipe_from
from batchscale.training.answer import StepAnswer
from benchmarks.gpu.setting import Setting

_MEAN, _STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


class Trainer(Protocol):
    """Trains on command."""

    def steps(self, count: int) -> None:
        """So many more steps; a device may still be computing the last ones."""


class Plain:
    """A loop of one process: bfloat16 autocast, channels last, fused SGD, cuDNN's choice of kernels.

    Source: docs.pytorch.org: tutorials/recipes/recipes/tuning_guide.html, notes/amp_examples.html,
    tutorials/intermediate/memory_format_tutorial.html.

    Args:
        setting: what is trained.
        compiled: torch.compile, of the normalisation, too.
        batches: of uint8 images and labels on the device, without end.
    """

    def __init__(self, setting: Setting, compiled: bool, batches: Iterator[tuple[torch.Tensor, torch.Tensor]]) -> None:
        torch.backends.cudnn.benchmark = True
        self._device, self._batches = setting.where, batches
        self._model = named_model(setting.model, (3, setting.side, setting.side), 1000)
        self._model = self._model.to(self._device, memory_format=torch.channels_last)
        mean, std = (torch.tensor(values, device=self._device).view(1, 3, 1, 1) for values in (_MEAN, _STD))

        def forward(images: torch.Tensor) -> torch.Tensor:
            return self._model(((images - mean) / std).contiguous(memory_format=torch.channels_last))

        self._forward = torch.compile(forward) if compiled else forward
        self._optimizer = torch.optim.SGD(
            self._model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4, fused=True
        )

    def steps(self, count: int) -> None:
        """So many more steps."""
        for images, labels in itertools.islice(self._batches, count):
            with torch.autocast(self._device.type, torch.bfloat16):
                loss = F.cross_entropy(self._forward(images), labels)
            loss.backward()
            self._optimizer.step()
            self._optimizer.zero_grad(set_to_none=True)


def in_memory(setting: Setting) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Minibatches of images that lie on the device, in a new order every epoch."""
    data = setting.dataset(setting.of(4096, 16))
    images, labels = data.train_images.to(setting.where), data.train_labels.to(setting.where)
    while True:
        order = torch.randperm(len(labels), device=setting.where)
        for rows in torch.split(order, setting.step_images):
            yield images[rows], labels[rows]


def by_loader(setting: Setting, folder: Path) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Minibatches of JPEG files: ImageFolder, transforms.v2 and a DataLoader of as many processes as cores."""
    from torch.utils.data import DataLoader, RandomSampler
    from torchvision.datasets import ImageFolder
    from torchvision.io import ImageReadMode, decode_image
    from torchvision.transforms import v2

    crop = v2.Compose([v2.RandomResizedCrop(setting.side, antialias=True), v2.RandomHorizontalFlip()])
    read = partial(decode_image, mode=ImageReadMode.RGB)
    data = ImageFolder(str(folder / "train"), crop, loader=read)
    cuda = setting.device == "cuda"
    loader = DataLoader(
        data, batch_size=setting.step_images, sampler=RandomSampler(data, num_samples=1 << 40),
        num_workers=setting.of(16, 1), pin_memory=cuda, drop_last=True, multiprocessing_context="forkserver",
    )  # fmt: skip
    for images, labels in loader:
        yield images.to(setting.where, non_blocking=cuda), labels.to(setting.where, non_blocking=cuda)


class Ours:
    """batchscale's parts of a run, as the loop drives them.

    Args:
        setting: what is trained.
        overrides: of the recipe.
        folder: of JPEG files; None for images in memory.

    Attributes:
        feed: of its passes.
    """

    def __init__(self, setting: Setting, *overrides: str, folder: Path | None = None) -> None:
        if folder is None:
            recipe = recipe_from(setting.recipe(), overrides)
            data = setting.dataset(setting.of(4096, 16)).splits()
        else:
            crop = {"crop": "scale-aspect", "size": setting.side, "flip": True}
            recipe = recipe_from(setting.recipe(data={"name": "folder", "augment": crop}), overrides)
            data = load_data(recipe, folder)
        self._parts = build(recipe, World(0, 1, setting.where), data, own_data=folder is None)
        self.feed: Feed = self._parts.make_feed()
        self._step = 0
        self._unread: deque[tuple[int, StepAnswer]] = deque()

    def steps(self, count: int) -> None:
        """So many more steps; a step's values are read as late as the loop reads them."""
        for _ in range(count):
            step = self._step
            self._unread.append((step, self._parts.step(step, self.next_passes())))
            if len(self._unread) > self._parts.step.gate.lag:
                self._read()

    def _read(self) -> None:
        """As the loop: where the device did not take a step's update, what was launched since runs again."""
        step, answer = self._unread.popleft()
        values = answer.read()
        if not values.settled:
            settled = self._parts.step.take_back(step, values, [answer, *(later for _, later in self._unread)])
            self._unread.clear()
            self._step = step if settled is None else step + 1

    def next_passes(self) -> Any:
        """The passes of the next step."""
        self._step += 1
        return self.feed.passes(self._step - 1)

    def decided(self) -> dict[str, Any]:
        """What the trial chose."""
        return {"micro_batch": self._parts.decided.micro_batch}


def _one(setting: Setting, folder: Path | None) -> Trainer:
    """One worker of all images: plain's statistics."""
    return Ours(setting, "minibatch.workers=1", f"minibatch.per_worker={setting.step_images}")


def _loaded(setting: Setting, folder: Path | None) -> Trainer:
    assert folder is not None
    return Plain(setting, True, by_loader(setting, folder / "images"))


def _packed(setting: Setting, folder: Path | None) -> Trainer:
    assert folder is not None
    return Ours(setting, folder=folder / "packed")


CONTENDERS: dict[str, Callable[[Setting, Path | None], Trainer]] = {
    "plain": lambda setting, folder: Plain(setting, True, in_memory(setting)),
    "plain_eager": lambda setting, folder: Plain(setting, False, in_memory(setting)),
    "batchscale_one": _one,
    "batchscale": lambda setting, folder: Ours(setting),
    "batchscale_compile": lambda setting, folder: Ours(setting, "numerics.compile=true"),
    "batchscale_exact": lambda setting, folder: Ours(setting, "numerics.exact=true"),
    "batchscale_jpeg": _packed,
    "plain_dataloader": _loaded,
}
"""Name -> what trains, made from the setting and the folder of the JPEG files."""

COMPILED = ("plain", "batchscale_compile", "plain_dataloader")
"""Those whose start is mostly the compiler's: they may start at once."""

FROM_MEMORY = ("plain", "plain_eager", "batchscale_one", "batchscale", "batchscale_compile", "batchscale_exact")
"""Those of the table of rates, plain first."""
