"""What `measure landscape` answers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from batchscale.build.state import State
from batchscale.comm import World
from batchscale.errors import UsageError
from batchscale.measure.function import has_batch_norm
from batchscale.measure.landscape.filled import filled
from batchscale.measure.landscape.kept import KeptPoints, Points, key_of
from batchscale.measure.landscape.places import Around, Between, axis, between
from batchscale.measure.landscape.points import Judge, Places, measured_points
from batchscale.measure.landscape.question import Question
from batchscale.task.base import ScoreKind
from batchscale.training.checkpoint import tensors_sha256
from batchscale.words import counted

Numbers = tuple[float | None, ...]
"""Of every point, the last axis fastest; None where a number is not finite."""


@dataclass(frozen=True)
class Landscape:
    """Of one run, or of one line.

    Attributes:
        name: of the run, or of both.
        steps: done, of each end.
        directions: what the axes are, as the document has them.
        loss, score: of the stated set.
        test_loss, test_score: of the test part; () where it was not asked for.
    """

    name: str
    steps: tuple[int, ...]
    directions: tuple[dict[str, Any], ...]
    loss: Numbers
    score: Numbers
    test_loss: Numbers
    test_score: Numbers


@dataclass(frozen=True)
class Answer:
    """Landscapes on the same points.

    Attributes:
        question: with every default filled in.
        form: around each run, or the line between two.
        axes: the coordinates along each.
        landscapes: one a run, or one.
        population, test_population: examples that there are of either part.
        noun: what these are called.
        score: what the task is judged by.
        weights: numbers that are varied.
        normalised: whether some layer has batch norm.
        averaged: whether the runs are judged at averaged weights, which these are not.
    """

    question: Question
    form: str
    axes: tuple[tuple[float, ...], ...]
    landscapes: tuple[Landscape, ...]
    population: int
    test_population: int
    noun: str
    score: ScoreKind
    weights: int
    normalised: bool
    averaged: bool

    @property
    def points(self) -> list[tuple[float, ...]]:
        """The coordinates of every point, the last axis fastest."""
        return list(itertools.product(*self.axes))


def answer_of(
    question: Question, states: Sequence[State], world: World | None = None, folder: Path | None = None
) -> Answer:
    """Measure landscapes.

    Args:
        question: as asked.
        states: opened; of a line two.
        world: the processes that share the points; None for this one alone.
        folder: of the findings, which keeps finished points; None for none.

    Raises:
        UsageError: one line.
    """
    form = question.form or ("line" if len(states) == 2 else "around")
    _check(form, states)
    train, test = (min(len(getattr(state.dataset, part)) for state in states) for part in ("train", "test"))
    full = filled(question, form, train, test)
    places: list[Places] = (
        [between(*states)]
        if form == "line"
        else [Around.of(state.model, full.seed, full.dimensions or 2) for state in states]
    )
    judges = [partial(Judge.of, state, full, place) for state, place in zip(states, places, strict=False)]
    ends = [(state.run.name, state.step) for state in states]
    state, world = states[0], world or World(device=states[0].device)
    kept = KeptPoints(folder, _key(full, states), values_of(full))
    return Answer(
        full,
        form,
        axes_of(full),
        landscapes(full, places, ends, judges, kept, world),
        len(state.dataset.train),
        len(state.dataset.test),
        state.task.examples,
        state.task.score,
        size_of(state.model),
        has_batch_norm(state.model),
        any(state.averaged_weights for state in states),
    )


def axes_of(question: Question) -> tuple[tuple[float, ...], ...]:
    """The coordinates along each axis of a filled question."""
    assert question.low is not None
    assert question.high is not None
    return (axis(question.low, question.high, question.points),) * (question.dimensions or 2)


def values_of(question: Question) -> int:
    """Numbers of a point: loss and score, of the test part, too, where it is asked for."""
    return 4 if question.test_examples else 2


def size_of(model: nn.Module) -> int:
    """P, the numbers that are varied."""
    return sum(weight.numel() for weight in model.parameters() if weight.requires_grad)


def landscapes(
    question: Question,
    places: Sequence[Places],
    ends: Sequence[tuple[str, int]],
    judges: Sequence[Callable[[], Judge]],
    kept: KeptPoints,
    world: World,
) -> tuple[Landscape, ...]:
    """Every point of every place, measured.

    Args:
        question: filled.
        places: around each run, or the line.
        ends: name and steps of each run.
        judges: one a place.
        kept: what is on disk of the points.
        world: the processes that share them.
    """
    points = list(itertools.product(*axes_of(question)))
    measured = measured_points(judges, points, kept, world, values_of(question))
    return tuple(_landscape(number, place, ends, measured, len(points)) for number, place in enumerate(places))


def _check(form: str, states: Sequence[State]) -> None:
    if form == "line" and len(states) != 2:
        raise UsageError(f"--form=line: leads from one run to another, and {counted(len(states), 'run')} cannot be "
                         f"its ends; give two runs")  # fmt: skip
    kinds = {(state.task.name, state.task.score) for state in states}
    if len(kinds) > 1:
        names = " and ".join(sorted({f"task={name}" for name, _ in kinds}))
        raise UsageError(f"{states[-1].run}: runs of {names} have no scale in common; measure each for itself")


def _key(question: Question, states: Sequence[State]) -> str:
    """Of all that the numbers hang on."""
    return key_of(
        {
            **question.model_dump(mode="json", exclude={"rise"}),
            "weights": [tensors_sha256(state.model.state_dict()) for state in states],
            "data": [state.dataset.contents for state in states],
            "task": states[0].task.name,
            "chunk": question.chunk or states[0].recipe.numerics.evaluation_chunk,
            "per_worker": states[0].recipe.minibatch.per_worker,
            "device": states[0].device.type,
            "torch": torch.__version__,
        }
    )


def _landscape(number: int, place: Places, ends: Sequence[tuple[str, int]], measured: Points, count: int) -> Landscape:
    rows = [measured[number, point] for point in range(count)]
    columns = [*zip(*rows, strict=True), (), ()][:4]
    directions: list[dict[str, Any]]
    if isinstance(place, Between):
        names, steps = zip(*ends, strict=True)
        directions = [{"kind": "line", "from": names[0], "to": names[1], "norm": _norm(place.direction)}]
        return Landscape(" to ".join(names), steps, tuple(directions), *columns)
    directions = [
        {"kind": "filter_normalised", "number": one, "norm": _norm(direction)}
        for one, direction in enumerate(place.directions, 1)
    ]
    return Landscape(ends[number][0], (ends[number][1],), tuple(directions), *columns)


def _norm(direction: torch.Tensor) -> float:
    return float(direction.norm())


def barrier(answer: Answer, landscape: Landscape) -> tuple[float, float] | None:
    """Of a line: (height, a) of the point between both ends that is furthest above the straight line of their losses.

    Source: Frankle, Dziugaite, Roy, Carbin 2020, "Linear mode connectivity", section 2.
    """
    losses = dict(zip(answer.axes[0], landscape.loss, strict=True))
    first, last = losses.get(0.0), losses.get(1.0)
    between = {a: loss for a, loss in losses.items() if 0 <= a <= 1 and loss is not None}
    if first is None or last is None:
        return None
    heights = {a: loss - ((1 - a) * first + a * last) for a, loss in between.items()}
    highest = max(heights, key=lambda a: heights[a])
    return heights[highest], highest


def loss_at(answer: Answer, landscape: Landscape, *point: float) -> float | None:
    """The loss at a point; None where it is not measured, or not finite."""
    return dict(zip(answer.points, landscape.loss, strict=True)).get(point)


def near(answer: Answer, landscape: Landscape) -> float | None:
    """The share of the points around a run at which the loss is at most ``rise`` above the run's; None without it."""
    centre = loss_at(answer, landscape, *(0.0 for _ in answer.axes))
    if centre is None:
        return None
    highest = centre + answer.question.rise
    return sum(loss is not None and loss <= highest for loss in landscape.loss) / len(landscape.loss)


def as_json(answer: Answer) -> dict[str, Any]:
    """For the document; what stands for itself is the first run's."""
    every = [_as_json(answer, landscape) for landscape in answer.landscapes]
    question = answer.question
    return {
        "step": answer.landscapes[0].steps[0],
        "form": answer.form,
        "axes": [list(axis) for axis in answer.axes],
        **{name: every[0][name] for name in ("loss", "score", "test_loss", "test_score", "directions")},
        "score_name": answer.score.key,
        "examples": question.examples,
        "test_examples": question.test_examples,
        "batch_norm": question.batch_norm if answer.normalised else None,
        "seed": question.seed,
        "rise": question.rise,
        "weights": answer.weights,
        "runs": every,
    }


def _as_json(answer: Answer, landscape: Landscape) -> dict[str, Any]:
    numbers = {name: getattr(landscape, name) for name in ("loss", "score", "test_loss", "test_score")}
    document: dict[str, Any] = {
        "run": landscape.name,
        "steps": list(landscape.steps),
        "directions": list(landscape.directions),
        **{name: _rows(answer, values) if values else None for name, values in numbers.items()},
    }
    if answer.form == "line":
        highest = barrier(answer, landscape)
        return document | {"barrier": highest and {"height": highest[0], "a": highest[1]}}
    return document | {"near": near(answer, landscape)}


def _rows(answer: Answer, values: Numbers) -> list[Any]:
    """Along one axis a list; over a plane one list for every place of the first axis."""
    if len(answer.axes) == 1:
        return list(values)
    width = len(answer.axes[1])
    return [list(values[start : start + width]) for start in range(0, len(values), width)]


def spread(values: Sequence[float | None]) -> tuple[float, float] | None:
    """The lowest and the highest that there is."""
    finite = [value for value in values if value is not None and math.isfinite(value)]
    return (min(finite), max(finite)) if finite else None
