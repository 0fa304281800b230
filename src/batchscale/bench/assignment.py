"""What every contender trains, as its processes are told: the recipe, the data, W, threads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn

from batchscale.build.inputs import load_data
from batchscale.data import DATASETS
from batchscale.data.examples import Splits
from batchscale.models import named_model
from batchscale.recipe import Recipe, recipe_from


@dataclass(frozen=True)
class Assignment:
    """What to train, in words that every library knows.

    Args:
        content: the recipe's entries.
        data_folder: of the data sets; None for the environment's.
        torchvision_name: the data set's class in torchvision.datasets, "" where there is none.
        torchvision_root: the folder that such a class reads.
        processes: W.
        threads: of each process.
    """

    content: Mapping[str, Any]
    data_folder: str | None
    torchvision_name: str
    torchvision_root: str
    processes: int
    threads: int

    def to_json(self) -> str:
        """As one line, for a process's command line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> Self:
        """What ``to_json`` has written."""
        return cls(**json.loads(line))

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe, resolved."""
        return recipe_from(self.content)

    @cached_property
    def dataset(self) -> Splits:
        """The recipe's data set."""
        return load_data(self.recipe, Path(self.data_folder) if self.data_folder else None)

    @property
    def minibatch_images(self) -> int:
        """kn."""
        return self.recipe.minibatch.workers * self.recipe.minibatch.per_worker

    @property
    def process_images(self) -> int:
        """Images of one process in a step: kn / W."""
        return self.minibatch_images // self.processes

    @property
    def mean(self) -> list[float]:
        """Of each channel, in units of 0..1."""
        return [m / 255 for m in DATASETS[self.recipe.data.name].mean]

    @property
    def std(self) -> list[float]:
        """Of each channel, in units of 0..1."""
        return [s / 255 for s in DATASETS[self.recipe.data.name].std]

    @property
    def label_smoothing(self) -> float:
        """Of the cross-entropy."""
        return self.recipe.loss.label_smoothing

    @property
    def sgd(self) -> dict[str, Any]:
        """The recipe's update as arguments of torch.optim.SGD, at the reference lr (speed does not hang on it)."""
        entry = self.recipe.optimizer
        return {
            "lr": self.recipe.learning_rate.reference,
            "momentum": entry.options()["momentum"],
            "nesterov": entry.options()["nesterov"],
            "weight_decay": entry.weight_decay,
        }

    def model(self) -> nn.Module:
        """The recipe's network as a plain module, torch's own batch norm in it."""
        torch.manual_seed(self.recipe.seed)
        return named_model(self.recipe.model.name, self.dataset.image_shape, self.dataset.num_classes)

    def normalised(self, images: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Training images as floats (N, C, H, W), normalised, and labels (N,); the first so many where given."""
        pixels, labels = self.dataset.train.part(slice(images))
        if pixels.dtype != torch.uint8:
            return pixels.float(), labels
        shape = (1, len(self.mean), 1, 1)
        scaled = pixels.float().div_(255)
        return scaled.sub_(torch.tensor(self.mean).view(shape)).div_(torch.tensor(self.std).view(shape)), labels
