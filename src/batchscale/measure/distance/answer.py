"""What `measure distance` answers.

    |w_t - w_0|  ~  a + b log t,   or  c t^p

Source: Hoffer, Hubara, Soudry 2017, "Train longer, generalize better", section 3 (the distance grows as log t while the
lr is high: an ultra-slow diffusion).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from batchscale.build.network import build_model
from batchscale.build.state import State, devices_in_use
from batchscale.comm import World
from batchscale.errors import CheckpointError, UsageError
from batchscale.records.files import is_number
from batchscale.records.run import RunRecords
from batchscale.training import checkpoint as checkpoints
from batchscale.training.parts import MODEL

NAME = "distance"
_FEWEST = 3  # steps of a fit


@dataclass(frozen=True)
class StraightLine:
    """A straight line.

    Attributes:
        slope: b of log t, or the power p.
        explained: R^2, the share of the spread that the line explains, of |w - w0| or of its logarithm.
    """

    slope: float
    explained: float


@dataclass(frozen=True)
class Travelled:
    """The distances of one run.

    Attributes:
        run: the folder's name.
        steps, distances: rising in the steps.
        minibatch: kn; None of one's own weights.
        initial: |w0|.
        logarithmic, power: fits; None of fewer than three steps.
    """

    run: str
    steps: tuple[int, ...]
    distances: tuple[float, ...]
    minibatch: int | None
    initial: float
    logarithmic: StraightLine | None
    power: StraightLine | None


@dataclass(frozen=True)
class Answer:
    """Of one run or several."""

    paths: tuple[Travelled, ...]


def answer_of(question: object, states: Sequence[State], world: World | None = None) -> Answer:
    """Measure distances; every process for itself.

    Raises:
        UsageError: the initial weights cannot be drawn again.
    """
    return Answer(tuple(map(_path, states)))


def _path(state: State) -> Travelled:
    trained = [name for name, weight in state.model.named_parameters() if weight.requires_grad]
    initial = initial_weights(state, trained)
    distances = _measured_while_training(state)
    for folder in checkpoints.folders(state.run):
        if checkpoints.steps_of(folder) >= state.step:
            continue
        try:
            tensors = checkpoints.load(folder).tensors
        except CheckpointError:
            if folder.exists():
                raise
            continue  # the run goes on, and has removed it meanwhile
        distances[checkpoints.steps_of(folder)] = distance(initial, {n: tensors[MODEL + n] for n in trained})
    distances[state.step] = distance(initial, {name: state.model.get_parameter(name) for name in trained})
    minibatch = state.recipe.minibatch
    return travelled(state.run.name, distances, minibatch.workers * minibatch.per_worker, initial)


def travelled(
    run: str, distances: Mapping[int, float], minibatch: int | None, initial: Mapping[str, torch.Tensor]
) -> Travelled:
    """Distances with their fits.

    Args:
        run, minibatch: whose they are.
        distances: by the steps done.
        initial: w0 by name.
    """
    steps = sorted(step for step in distances if step > 0)
    values = [distances[step] for step in steps]
    return Travelled(
        run,
        tuple(steps),
        tuple(values),
        minibatch,
        math.sqrt(sum(float(weight.double().square().sum()) for weight in initial.values())),
        fitted([math.log(step) for step in steps], values),
        fitted([math.log(step) for step in steps], [math.log(value) for value in values]) if all(values) else None,
    )


def initial_weights(state: State, names: Sequence[str]) -> dict[str, torch.Tensor]:
    """The trained weights that a run began with, drawn again by its seed.

    Raises:
        UsageError: of one's own module nothing says how it began.
    """
    if state.own_model is not None or state.recipe.model.name == "own":
        raise UsageError(
            f"{state.run}: trained one's own module, and nothing says which weights that began with; register it as a "
            f"model of a plugin"
        )
    with torch.random.fork_rng(devices=devices_in_use(state.device)):
        model = build_model(state.recipe, state.dataset)
    weights = dict(model.named_parameters())
    return {name: weights[name].detach() for name in names}


def _measured_while_training(state: State) -> dict[int, float]:
    """Step -> distance, of the lines of measures.jsonl up to the state's step."""
    lines = RunRecords(state.run).measures() if state.run.is_dir() else []
    results = [(line.get("step"), line.get("result")) for line in lines if line.get("measure") == NAME]
    return {
        step: float(result["distance"])
        for step, result in results
        if isinstance(step, int) and step <= state.step and isinstance(result, dict) and is_number(result["distance"])
    }


def distance(initial: Mapping[str, torch.Tensor], weights: Mapping[str, torch.Tensor]) -> float:
    """|w - w0| over the weights of ``initial``."""
    squares = (
        float((weights[name].detach().double().cpu() - start.double().cpu()).square().sum())
        for name, start in initial.items()
    )
    return math.sqrt(sum(squares))


def fitted(x: Sequence[float], y: Sequence[float]) -> StraightLine | None:
    """The straight line of least squares; None of fewer than three points, or of one x."""
    if len(x) < _FEWEST or len(set(x)) < 2:
        return None
    across, down = np.asarray(x, np.float64), np.asarray(y, np.float64)
    slope, foot = np.polyfit(across, down, 1)
    spread = float(((down - down.mean()) ** 2).sum())
    left = float(((down - foot - slope * across) ** 2).sum())
    return StraightLine(float(slope), 1 - left / spread if spread else 1.0)


def as_json(answer: Answer) -> dict[str, Any]:
    """For the document; what stands for itself is the first run's."""
    every = [_as_json(path) for path in answer.paths]
    return {"step": every[0]["steps"][-1], "distance": every[0]["distances"][-1], "runs": every}


def _as_json(path: Travelled) -> dict[str, Any]:
    fits = {"logarithmic": path.logarithmic, "power": path.power}
    return {
        "run": path.run,
        "minibatch": path.minibatch,
        "steps": list(path.steps),
        "distances": list(path.distances),
        "initial_norm": path.initial,
        **{name: fit and {"slope": fit.slope, "explained": fit.explained} for name, fit in fits.items()},
    }
