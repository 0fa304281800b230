"""All that a run is made of, on one process: what ``build`` makes and the loop works with."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import nn

from batchscale.aggregate import ExactAggregator, FastAggregator
from batchscale.comm import World
from batchscale.data.examples import Splits
from batchscale.data.feed import Feed, Normalizer
from batchscale.recipe.schema import Recipe
from batchscale.training.decided import Decided
from batchscale.training.growing import Growing
from batchscale.training.measuring import Measuring
from batchscale.training.riders import Request
from batchscale.training.step import TrainingStep
from batchscale.update.adascale import AdaScale
from batchscale.update.ema import AveragedWeights
from batchscale.update.optimizers import Optimizer
from batchscale.worker.recompute import Recomputation

MODEL, AVERAGES = "model.", "batch_norm."
"""What the names of the state of the model, and of its running averages, begin with."""


@dataclass
class Parts:
    """All that a run is made of, on one process.

    Attributes:
        model: holds weights and averages.
        evaluation: the model as an evaluation calls it.
        requests: what processes may ask of all, by name: to stop, to share news.
        kept_steps: steps whose checkpoints stay.
        gain: the lr by measured gains; None where the schedule alone says it.
        measuring: what measures the run's state between steps, handed in by who trains them.
        growing: takes the decisions by which the minibatch grows; None where it does not, or as stated.
    """

    recipe: Recipe
    world: World
    dataset: Splits
    model: nn.Module
    evaluation: nn.Module
    step: TrainingStep
    optimizer: Optimizer
    aggregator: FastAggregator | ExactAggregator
    normalizer: Normalizer
    decided: Decided
    requests: Mapping[str, Request]
    make_feed: Callable[[], Feed]
    restore: Callable[[], None]
    recomputation: Recomputation | None = None
    kept_steps: Container[int] = frozenset()
    growing: Growing | None = None
    gain: AdaScale | None = None
    measuring: Measuring | None = None

    def state(self) -> dict[str, torch.Tensor]:
        """Every tensor of the run's state by name: live ones, loaded by copying into them."""
        return {
            **{f"{MODEL}{n}": t for n, t in self.model.state_dict().items()},
            **{f"{AVERAGES}{n}": t for n, t in self.step.averages.state().items()},
            **{f"optimizer.{n}": t for n, t in self.optimizer.state().items()},
            **{f"aggregate.{n}": t for n, t in self.aggregator.state().items()},
            **{f"gain.{n}": t for n, t in (self.gain.state() if self.gain else {}).items()},
            **{f"loss_scale.{n}": t for n, t in self.step.loss_scale.state().items()},
        }

    def weights(self, per_worker: int) -> dict[str, dict[str, torch.Tensor]]:
        """What a run leaves: "weights", and "weights_ema" where they were averaged; all processes call it together.

        Args:
            per_worker: n of the last step.
        """
        with self._statistics(per_worker):
            weights = {"weights": _copied(self.model)}
        if isinstance(self.optimizer, AveragedWeights):
            with self.evaluated(per_worker):
                weights["weights_ema"] = _copied(self.model)
        return weights

    @contextmanager
    def evaluated(self, per_worker: int) -> Iterator[None]:
        """While it is open, the model holds what is to be evaluated, on all processes together.

        That is the averaged weights where there are such, and batch norm's statistics recomputed at them where the
        recipe says so.

        Args:
            per_worker: n of the last step.
        """
        averaged = self.optimizer.in_place() if isinstance(self.optimizer, AveragedWeights) else nullcontext()
        with averaged, self._statistics(per_worker):
            yield

    def _statistics(self, per_worker: int) -> AbstractContextManager[None]:
        return self.recomputation.in_place(per_worker) if self.recomputation else nullcontext()

    def close(self) -> None:
        """Leave the model as a plain module again."""
        self.aggregator.close()
        self.restore()
        # What measures knows these parts: while they know it, they live until a collection, and with them the processes
        # that draw items of a Dataset, which hold the lock of the run's folder by the file that they were forked with.
        self.measuring = None


def _copied(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
