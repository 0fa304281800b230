"""All that a run is made of, on one process: what ``build`` makes and the loop works with."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from batchscale.aggregate import ExactAggregator, FastAggregator
from batchscale.comm import World
from batchscale.data.feed import Feed, Normalizer
from batchscale.data.images import Splits
from batchscale.engine.step import TrainingStep
from batchscale.recipe.schema import Recipe
from batchscale.update.ema import AveragedWeights
from batchscale.update.optimizers import Optimizer


@dataclass
class Parts:
    """All that a run is made of, on one process."""

    recipe: Recipe
    world: World
    dataset: Splits
    model: nn.Module
    step: TrainingStep
    optimizer: Optimizer
    aggregator: FastAggregator | ExactAggregator
    normalizer: Normalizer
    decided: dict[str, Any]
    make_feed: Callable[[], Feed]
    restore: Callable[[], None]

    def state(self) -> dict[str, torch.Tensor]:
        """Every tensor of the run's state by name: live ones, loaded by copying into them."""
        return {
            **{f"model.{n}": t for n, t in self.model.state_dict().items()},
            **{f"optimizer.{n}": t for n, t in self.optimizer.state().items()},
            **{f"aggregate.{n}": t for n, t in self.aggregator.state().items()},
            **{f"loss_scale.{n}": t for n, t in self.step.loss_scale.state().items()},
        }

    def weights(self) -> dict[str, dict[str, torch.Tensor]]:
        """What a run leaves: "weights", and "weights_ema" where they were averaged."""
        found = {"weights": self.model.state_dict()}
        if isinstance(self.optimizer, AveragedWeights):
            found["weights_ema"] = self.optimizer.averaged()
        return found

    def evaluated(self) -> AbstractContextManager[None]:
        """While it is open, the model holds the weights to be evaluated: the averaged ones where there are such."""
        return self.optimizer.in_place() if isinstance(self.optimizer, AveragedWeights) else nullcontext()

    def close(self) -> None:
        """Leave the model as a plain module again."""
        self.aggregator.close()
        self.restore()
