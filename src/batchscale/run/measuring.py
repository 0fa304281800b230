"""Measures of a run under way, as its loop is handed them: what a recipe asks, checked; the live state, measured."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import nn

from batchscale.build.state import State, devices_in_use, live_state, open_state
from batchscale.comm import World
from batchscale.errors import RecipeError, UsageError
from batchscale.measure.function import check_function
from batchscale.measure.measures import MEASURES, measured_line, question_of
from batchscale.measure.objective import Objective
from batchscale.measure.power import top_eigenvalue
from batchscale.measure.question import MeasureQuestion
from batchscale.recipe import Recipe
from batchscale.recipe.measuring import MeasureEntry
from batchscale.records import RunFolder, RunRecords
from batchscale.records.run import MEASURES as MEASURES_LINES
from batchscale.run.job import Job
from batchscale.training.measuring import CurvatureAsked
from batchscale.training.parts import Parts
from batchscale.words import did_you_mean

_CHUNK = 64  # examples of one pass of a Hessian: the same for every W, and whatever the minibatch has grown to


def check_measures(recipe: Recipe) -> None:
    """Raise where a measure of a recipe is none, or has options that it does not take.

    Raises:
        RecipeError: one line.
    """
    for number, entry in enumerate(recipe.execution.measures):
        asked_of(entry, f"execution.measures[{number}]")


def asked_of(entry: MeasureEntry, setting: str) -> MeasureQuestion:
    """The question that an entry puts.

    Args:
        entry: of a recipe.
        setting: where it stands, for errors.

    Raises:
        RecipeError: no such measure, or no such option of it.
    """
    if entry.name not in MEASURES:
        raise RecipeError(
            f"{setting}.name={entry.name}: is no measure; {did_you_mean(entry.name, MEASURES)}use "
            f"{' or '.join(MEASURES)}"
        )
    question = question_of(entry.name)
    try:
        return question.model_validate(entry.options)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            raise RecipeError(
                f"{setting}.options.{name}: is no option of {entry.name}; "
                f"{did_you_mean(name, question.model_fields)}use one of {', '.join(question.model_fields)}"
            ) from None
        raise RecipeError(
            f"{setting}.options.{name}={entry.options.get(name)}: {first['msg']}; see batchscale measure {entry.name} "
            f"--help"
        ) from None


def own_copy(recipe: Recipe, model: nn.Module | None) -> nn.Module | None:
    """A copy of one's own module as it was handed in, for a run that is measured; else None.

    Raises:
        RecipeError: it cannot be copied.
    """
    if model is None or not is_measured(recipe):
        return None
    try:
        return copy.deepcopy(model)
    except Exception as error:
        reason = " ".join(str(error).split())
        raise RecipeError(
            f"execution.measures: a run is measured on a copy of its model, and this one cannot be copied "
            f"({reason[:200]}); leave execution.measures out, or measure its checkpoints"
        ) from None


def is_measured(recipe: Recipe) -> bool:
    """Whether something in the recipe asks for measures of the live state."""
    return bool(recipe.execution.measures) or recipe.minibatch.growth.measures_state()


@dataclass(frozen=True)
class LiveMeasures:
    """Measures the state of a run under way; see ``training.measuring.Measuring``.

    Raises:
        RecipeError: the run grows by curvature, and its loss is no function of the weights alone.

    Args:
        job: of the run.
        parts: of the run.
        own_model: a copy of one's own module; None for the recipe's.
    """

    job: Job
    parts: Parts
    own_model: nn.Module | None = None

    def __post_init__(self) -> None:
        if self.parts.recipe.minibatch.growth.measures_state():
            check_function(self.parts.model, self.parts.step.task)

    def __call__(self, entry: MeasureEntry, step: int) -> dict[str, Any]:
        """What the measure says; the random numbers of the run stand still."""
        content = _said(entry, self._state(step), self.parts.world)
        return self.parts.world.from_rank_zero(lambda: content, f"the measure {entry.name}")

    def curvature(self, question: CurvatureAsked, step: int) -> tuple[float, ...]:
        """The top eigenvalue of the Hessian of the mean loss over the stated set, at the weights of now."""
        world, state = self.parts.world, self._state(step)
        count = min(question.examples, len(state.dataset.train))
        with torch.random.fork_rng(devices=devices_in_use(world.device)):
            objective = Objective.of(state, count, _CHUNK, world)
            top = top_eigenvalue(objective.hessian_product, objective.size, question.tolerance, question.most_products)
        # A decision hangs on it: what rank 0 has is what all have, to the bit.
        return world.from_rank_zero(lambda: (top.value, top.residual, top.products), "the top eigenvalue")

    def _state(self, step: int) -> State:
        return live_state(self.parts, self.job.out or Path(self.job.name), step, self.own_model)


def measure_ended(run: Path, entry: MeasureEntry, data_folder: Path | None) -> dict[str, Any]:
    """Measure the last checkpoint of a run that has ended, and add the line that it would have written itself.

    Args:
        run: its folder, which no other process may have locked.
        entry: the measure with its options.
        data_folder: of the data sets.
    """
    start, state = time.perf_counter(), open_state(run, data_folder=data_folder)
    content = _said(entry, state)
    epochs = next((one["epoch"] for one in reversed(RunRecords(run).metrics()) if one.get("step") == state.step), None)
    line = {
        "step": state.step,
        "epoch": epochs,
        "measure": entry.name,
        "options": entry.options,
        "seconds": round(time.perf_counter() - start, 3),
        **content,
    }
    folder = RunFolder(run)
    try:
        folder.append(MEASURES_LINES, line)
    finally:
        folder.close()
    return line


def _said(entry: MeasureEntry, state: State, world: World | None = None) -> dict[str, Any]:
    """What a measure says of a state, or why it says nothing; the process's random numbers stand still."""
    question = asked_of(entry, "execution.measures")
    with torch.random.fork_rng(devices=devices_in_use(state.device)):
        try:
            return measured_line(entry.name, question, [state], world)
        except UsageError as error:
            return {"refused": str(error)}
