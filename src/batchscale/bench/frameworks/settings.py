"""What is trained with, in words that every framework knows: the order of examples, the lr of every step, constants."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from batchscale.build.inputs import order_of
from batchscale.build.planning import plan_of, schedule_of
from batchscale.recipe import Recipe, recipe_from

PROOF_STEPS = 10
_PROOF_EXAMPLES = 8  # of a process in a step of the proof, at most: the work is the same for any number
_PROOF_RATES = {"sgd": 0.01, "adam": 0.001}
_ENDLESS = 1e6  # epochs
_MOMENTUM = 0.9


@dataclass(frozen=True)
class TrainingSetting:
    """From the initial weights on; see ``programs/protocol.py`` for what a program reads of it.

    Attributes:
        told: its entries for a program.
        steps: of it, as many as the files hold.
        minibatch: kn.
    """

    told: dict[str, Any]
    steps: int
    minibatch: int

    @property
    def order(self) -> dict[str, Any]:
        """What the processes are told."""
        return {"prepare": self.told}


class TrainingSettings:
    """Makes settings of a recipe.

    Args:
        recipe: comparable.
        training_images: N.
        folder: where order and rates of every setting go.
    """

    def __init__(self, recipe: Recipe, training_images: int, folder: Path) -> None:
        self._recipe, self._images, self._folder = recipe, training_images, folder
        self._numbers = itertools.count()

    @property
    def training_images(self) -> int:
        """N."""
        return self._images

    @property
    def minibatch(self) -> int:
        """kn of the recipe: what one process has in the weak series, and all have together in the strong one."""
        return self._recipe.minibatch.workers * self._recipe.minibatch.per_worker

    def proof(self, optimizer: str, processes: int) -> TrainingSetting:
        """Ten steps at a constant lr.

        Args:
            optimizer: "sgd" (momentum 0.9) or "adam" (constants and lr of the recipe, where that is its optimizer).
            processes: W.
        """
        entry: dict[str, Any] = {"name": "sgd", "momentum": _MOMENTUM, "nesterov": False, "weight_decay": 0.0}
        rate = _PROOF_RATES[optimizer]
        if optimizer == "adam":
            own = self._recipe.optimizer.name == "adamw"
            entry = self._recipe.optimizer.model_dump() if own else {"name": "adamw", "weight_decay": 0.0}
            rate = self._recipe.learning_rate.reference if own else rate
        per_process = min(self.minibatch // processes, _PROOF_EXAMPLES)
        return self._setting(processes, per_process, self._constant(rate, entry), PROOF_STEPS)

    def timing(self, processes: int, per_process: int) -> TrainingSetting:
        """The recipe's optimizer at its reference lr, without end."""
        entry = self._recipe.optimizer.model_dump()
        return self._setting(processes, per_process, self._constant(self._recipe.learning_rate.reference, entry))

    def training(self, processes: int, per_process: int, epochs: int) -> TrainingSetting:
        """The recipe's rules over so many epochs."""
        return self._setting(processes, per_process, {"epochs": epochs}, epochs=epochs)

    def _constant(self, rate: float, optimizer: dict[str, Any]) -> dict[str, Any]:
        rates = {"reference": rate, "reference_minibatch": self.minibatch, "scaling": "none"}
        return {"learning_rate": rates, "optimizer": optimizer, "epochs": _ENDLESS}

    def _setting(
        self, processes: int, per_process: int, entries: dict[str, Any], steps: int | None = None, epochs: int = 1
    ) -> TrainingSetting:
        minibatch = {"workers": processes, "per_worker": per_process}
        recipe = recipe_from({**self._recipe.model_dump(), **entries, "minibatch": minibatch})
        plan = plan_of(recipe, self._images)
        schedule, phase = schedule_of(recipe, plan), plan.phases[0]
        steps = steps or int(phase.steps_per_epoch) * epochs
        places = np.arange(steps * phase.minibatch.images).reshape(steps, -1)
        order = order_of(recipe, plan, None)
        rows = [_row(order.at_places, row, phase.epoch_images) for row in places]
        files = {kind: str(self._folder / f"{kind}-{next(self._numbers)}.npy") for kind in ("order", "rates")}
        np.save(files["order"], np.stack(rows))
        np.save(files["rates"], np.array([schedule(step) for step in range(steps)]))
        told = {
            "content": recipe.model_dump(mode="json"),
            "per_process": per_process,
            "minibatch": phase.minibatch.images,
            "optimizer": _constants(recipe),
            **files,
        }
        return TrainingSetting(told, steps, phase.minibatch.images)


def _row(at_places: Any, positions: np.ndarray[Any, Any], epoch_images: int) -> np.ndarray[Any, Any]:
    """The examples of one step: with whole minibatches an epoch it lies in one epoch."""
    return np.asarray(at_places(int(positions[0]) // epoch_images, positions % epoch_images))


def _constants(recipe: Recipe) -> dict[str, Any]:
    options = recipe.optimizer.options()
    if recipe.optimizer.name == "adamw":  # without decay it is Adam
        return {"name": "adam", **{name: options[name] for name in ("beta1", "beta2", "epsilon")}}
    return {"name": "sgd", "momentum": options["momentum"], "nesterov": options["nesterov"]}


def check_sizes(minibatch: int, processes: Sequence[int], training_images: int) -> str | None:
    """Why the weak series does not fit the data; None where it does."""
    largest = minibatch * max(processes)
    if largest <= training_images:
        return None
    return (
        f"--processes={max(processes)}: the weak series gives every process {minibatch} images, {largest} together, "
        f"and there are {training_images}; use fewer processes, or a smaller minibatch"
    )
