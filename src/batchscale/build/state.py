"""The state of a run after a step, opened to be asked: its model, data, task and recipe, and nothing that trains.

No aggregator, no optimizer, no switch of the whole process: threads, determinism and random numbers stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from batchscale.build.inputs import load_data, make_normalizer
from batchscale.build.network import WEIGHTS, build_model, for_evaluation, lay_out
from batchscale.build.tasks import make_task
from batchscale.comm import World
from batchscale.data import OwnData
from batchscale.data.contents import difference, merged
from batchscale.data.examples import Examples, Splits
from batchscale.data.feed import Normalizer
from batchscale.errors import CheckpointError, FolderError
from batchscale.recipe import Recipe, load_recipe
from batchscale.records.folder import attempted, holds_run
from batchscale.task import Evaluated, Task
from batchscale.training import checkpoint as checkpoints
from batchscale.training.evaluation import evaluate
from batchscale.training.parts import MODEL, Parts

_AVERAGED, _UPDATES = "optimizer.ema.", "optimizer.ema_steps"


@dataclass(frozen=True)
class State:
    """A run after so many steps.

    Attributes:
        run: its folder.
        step: steps done.
        tensors: every tensor of the checkpoint by name.
        device: where the model is put.
        own_model, own_data, own_task: what was handed in from Python in place of the recipe's.
        data_folder: of the data sets.
    """

    run: Path
    step: int
    tensors: dict[str, torch.Tensor]
    device: torch.device
    data_folder: Path | None = None
    own_model: nn.Module | None = None
    own_data: OwnData | None = None
    own_task: Task | None = None

    @cached_property
    def recipe(self) -> Recipe:
        """Of the run."""
        return load_recipe(self.run / "recipe.yaml")

    @cached_property
    def dataset(self) -> Splits:
        """What the run trained and was evaluated on.

        Raises:
            DataError: it cannot be read.
            CheckpointError: the data at hand are other ones than the run's.
        """
        dataset = load_data(self.recipe, self.data_folder, self.own_data)
        recorded = merged(attempted(self.run, "data"))
        if recorded and (sentence := difference(recorded, dataset.contents, ("there", "here"))):
            raise CheckpointError(f"{self.run}: holds a run on other data: {sentence}; name its own with --data")
        return dataset

    @cached_property
    def task(self) -> Task:
        """What the run learned."""
        return self.own_task or make_task(self.recipe, self.dataset)

    @cached_property
    def normalizer(self) -> Normalizer:
        """Makes inputs of the data's examples."""
        return make_normalizer(self.recipe, self.dataset, self.own_data is not None, self.device)

    @cached_property
    def model(self) -> nn.Module:
        """A plain module in evaluation mode, with the weights and running averages of the step.

        Raises:
            CheckpointError: the checkpoint is another model's.
        """
        # The weights of the step replace initial ones: neither a file of such is needed, nor do random numbers move.
        entry = self.recipe.model.model_copy(update={"pretrained": None, "pretrained_key": None})
        recipe = self.recipe.model_copy(update={"model": entry})
        with torch.random.fork_rng(devices=devices_in_use(self.device)):
            model = build_model(recipe, self.dataset, self.own_model)
        model = model.to(device=self.device, dtype=WEIGHTS[self.recipe.precision])
        lay_out(model, self.recipe.numerics.memory_format)
        weights = {name.removeprefix(MODEL): t for name, t in self.tensors.items() if name.startswith(MODEL)}
        self._fill(model, weights)
        return model.eval()

    @cached_property
    def averaged_weights(self) -> dict[str, torch.Tensor]:
        """The averaged weights by name, {} where the run keeps none, or has made no update yet (fp16's first steps)."""
        if not self.tensors.get(_UPDATES, torch.ones(())):
            return {}
        return {
            name.removeprefix(_AVERAGED): tensor for name, tensor in self.tensors.items() if name.startswith(_AVERAGED)
        }

    def evaluate(self, averaged: bool = True, examples: Examples | None = None) -> Evaluated:
        """The evaluation of the run at this step, made again on its test part by this process.

        As in training it is in the passes' precision on a GPU, here never compiled. Batch norm's running averages are
        used, also where the run recomputes its statistics.

        Args:
            averaged: at the averaged weights where the run keeps such, as the run itself does.
            examples: others in place of the test part, such as a shard of it.
        """
        weights = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        try:
            if averaged and self.averaged_weights:
                self._fill(self.model, {**weights, **self.averaged_weights})
            chunk = self.recipe.numerics.evaluation_chunk
            part = self.dataset.test if examples is None else examples
            model = for_evaluation(self.recipe, self.model, self.device)
            return evaluate(model, self.task, part, self.normalizer, World(device=self.device), chunk)
        finally:
            self._fill(self.model, weights)
            self.model.eval()

    def _fill(self, model: nn.Module, weights: dict[str, torch.Tensor]) -> None:
        try:
            model.load_state_dict(weights)
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise CheckpointError(
                f"{self.run}: step {self.step} holds another model's state ({reason[:200]}); give the run's own model"
            ) from None


def devices_in_use(device: torch.device) -> list[int]:
    """The devices whose random numbers torch.manual_seed sets: all, where one is in use."""
    in_use = device.type == "cuda" or torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return list(range(torch.cuda.device_count())) if in_use else []


def open_state(
    run: str | Path,
    step: int | Literal["last"] = "last",
    *,
    device: torch.device | None = None,
    data_folder: Path | None = None,
    model: nn.Module | None = None,
    data: OwnData | None = None,
    task: Task | None = None,
) -> State:
    """Open a run's folder at a step; its dataset, task and model are made when they are first asked for.

    Args:
        run: the folder of a run.
        step: of one of its checkpoints; "last" for the newest.
        device: of the model; None for the processor.
        data_folder: of the data sets.
        model, data, task: one's own, of a run that was given such; the model is filled in place.

    Raises:
        FolderError: the folder holds no run.
        CheckpointError: there is no checkpoint of this step, or it is damaged.
    """
    run = Path(run)
    if not holds_run(run):
        raise FolderError(f"{run}: holds no run; give the folder of a run")
    if step != "last" and not isinstance(step, int):
        raise CheckpointError(f'step={step!r}: must be a whole number of steps, or "last"')
    checkpoint = checkpoints.load(checkpoints.folder_of(run, None if step == "last" else step, "step"))
    device = device or torch.device("cpu")
    return State(run, checkpoint.step, checkpoint.tensors, device, data_folder, model, data, task)


def live_state(parts: Parts, run: Path, step: int, own_model: nn.Module | None = None) -> State:
    """The state of a run under way, for a measure between two of its steps; its model is a plain copy.

    So a measure may do with the model what it likes: the run trains another one.

    Args:
        parts: of the run.
        run: its folder, or its name where nothing is written.
        step: steps done.
        own_model: where the run trains one's own module, a copy of it, filled in place.
    """
    state = State(run, step, parts.state(), parts.world.device, own_model=own_model)
    # What the run has loaded already stands in the place of what a state would read for itself.
    loaded = {"recipe": parts.recipe, "dataset": parts.dataset, "task": parts.step.task, "normalizer": parts.normalizer}
    vars(state).update(loaded)
    return state
