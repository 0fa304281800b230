"""What every contender trains, as its processes are told: the recipe, the data, W, threads."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn

from batchscale.bench.losses import MeanLoss, mean_loss
from batchscale.build.inputs import load_data, make_normalizer
from batchscale.build.network import build_model
from batchscale.build.tasks import make_task
from batchscale.data import DATASETS
from batchscale.data.examples import Splits
from batchscale.errors import RecipeError
from batchscale.recipe import Recipe, recipe_from
from batchscale.task import Task

OPTIMIZERS = ("sgd", "adamw")
"""Those that torch has, too."""


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

    @cached_property
    def task(self) -> Task:
        """What is learned."""
        return make_task(self.recipe, self.dataset)

    @cached_property
    def mean_loss(self) -> MeanLoss:
        """(outputs, targets of m examples) -> the recipe's loss, as plain torch has it."""
        return mean_loss(self.recipe, self.task)

    def check(self) -> None:
        """Raise where plain loops over tensors cannot train this.

        Raises:
            RecipeError: a task whose loss is a worker's.
        """
        if self.task.unit != "example":
            raise RecipeError(
                f"task={self.recipe.task}: bench step compares loops over tensors whose examples have losses of their "
                f"own, and here the loss is a whole {self.task.unit}'s; measure a recipe of another task"
            )

    def optimizer(self, weights: Iterable[nn.Parameter], **faster: Any) -> torch.optim.Optimizer:
        """The recipe's update by torch's own optimizer, at the reference lr (speed does not hang on it).

        Args:
            weights: of the model.
            faster: arguments of torch's optimizer that change its speed alone.
        """
        entry, options = self.recipe.optimizer, self.recipe.optimizer.options()
        common = {"lr": self.recipe.learning_rate.reference, "weight_decay": entry.weight_decay, **faster}
        if entry.name == "adamw":
            betas, epsilon = (options["beta1"], options["beta2"]), options["epsilon"]
            return torch.optim.AdamW(weights, betas=betas, eps=epsilon, **common)
        return torch.optim.SGD(weights, momentum=options["momentum"], nesterov=options["nesterov"], **common)

    def model(self) -> nn.Module:
        """The recipe's network as a plain module, torch's own batch norm in it."""
        return build_model(self.recipe, self.dataset)

    def normalised(self, examples: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Training inputs as the network gets them, images as normalised floats (N, C, H, W), and targets (N, ...).

        Args:
            examples: the first so many alone.
        """
        inputs, targets = self.dataset.train.part(slice(examples))
        if inputs.dtype != torch.uint8:
            return inputs.float() if inputs.is_floating_point() else inputs, targets
        if not self.mean:
            return make_normalizer(self.recipe, self.dataset, False, torch.device("cpu"))(inputs), targets
        shape = (1, len(self.mean), 1, 1)
        scaled = inputs.float().div_(255)
        return scaled.sub_(torch.tensor(self.mean).view(shape)).div_(torch.tensor(self.std).view(shape)), targets
