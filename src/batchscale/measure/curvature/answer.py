"""What `measure curvature` answers."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from batchscale.build.state import State
from batchscale.comm import World
from batchscale.errors import UsageError
from batchscale.measure.curvature.question import Question
from batchscale.measure.curvature.spectrum import (
    SpectralDensity,
    TopEigenvalues,
    TraceEstimate,
    spectral_density,
    top_eigenvalues,
    trace,
)
from batchscale.measure.function import has_batch_norm
from batchscale.measure.objective import Objective
from batchscale.task import Task

_USUAL_EXAMPLES, _LINE_SECONDS = 1024, 5.0


@dataclass(frozen=True)
class PartCurvature:
    """The curvature of a net, or a part of it.

    Attributes:
        run: the folder's name.
        step: steps done.
        part: its name; None for the whole net.
        weights: P.
        loss: at the weights.
        eigenvalues, trace, density: None where they were not asked for.
        products: with the matrix, that it took.
    """

    run: str
    step: int
    part: str | None
    weights: int
    loss: float
    eigenvalues: TopEigenvalues | None
    trace: TraceEstimate | None
    density: SpectralDensity | None
    products: int

    @property
    def name(self) -> str:
        """Of the part, in words."""
        return self.part or "whole net"


@dataclass(frozen=True)
class Answer:
    """The curvature of states.

    Attributes:
        rows: of every run, and in it of every part.
        examples, population: M of the N training examples.
        noun: what these are called.
        matrix: in words.
        batch_norm: how it normalises, "" where the nets have none.
        seed: of the random vectors.
        task: its name.
    """

    rows: tuple[PartCurvature, ...]
    examples: int
    population: int
    noun: str
    matrix: str
    batch_norm: str
    seed: int
    task: str


class Counted:
    """Products with a matrix, counted, with a line on standard error every five seconds.

    Args:
        objective: whose matrix.
        gauss_newton: that one in place of the Hessian.
        words: of the line; "" for none.
    """

    def __init__(self, objective: Objective, gauss_newton: bool, words: str = "") -> None:
        self._of = objective.gauss_newton_products if gauss_newton else objective.hessian_products
        self._words = words if objective.world.rank == 0 else ""
        self.number = 0
        self._device = objective.device
        self._start = self._spoke = time.monotonic()

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        products = self._of(rows.to(self._device))
        self.number += len(rows)
        now = time.monotonic()
        if self._words and now - self._spoke >= _LINE_SECONDS:
            self._spoke = now
            each = (now - self._start) / self.number
            print(f"{self._words}: {self.number} products, {each:.2g} s each", file=sys.stderr, flush=True)
        return products


def answer_of(question: Question, states: Sequence[State], world: World | None = None) -> Answer:
    """Measure the curvature of states.

    Raises:
        UsageError: more examples than there are, a part that the net does not have, a layer without a second
            derivative, or a loss that is no function of the weights alone.
    """
    _check_task(states)
    rows: list[PartCurvature] = []
    count = question.examples or min(_USUAL_EXAMPLES, *(len(state.dataset.train) for state in states))
    for state in states:
        for part in question.parts or (None,):
            objective = Objective.of(
                state,
                count,
                question.chunk,
                world or World(device=state.device),
                parameters=None if part is None else [part],
                batch_norm=question.batch_norm,
                precision=question.precision,
            )
            rows.append(of_part(question, objective, state.run.name, state.step, part))
    first = states[0]
    models = [state.model for state in states]
    return answer_about(question, rows, count, len(first.dataset.train), first.task, models)


def answer_about(
    question: Question,
    rows: Sequence[PartCurvature],
    examples: int,
    population: int,
    task: Task,
    models: Sequence[nn.Module],
) -> Answer:
    """Rows with what they are about.

    Args:
        question: as asked.
        rows: measured.
        examples, population: M of N.
        task: of all rows.
        models: of them.
    """
    return Answer(
        tuple(rows),
        examples,
        population,
        task.examples,
        "Gauss-Newton matrix" if question.gauss_newton else "Hessian",
        question.batch_norm if any(has_batch_norm(model) for model in models) else "",
        question.seed,
        task.name,
    )


def _check_task(states: Sequence[State]) -> None:
    first = states[0]
    for state in states[1:]:
        if state.task.name != first.task.name:
            raise UsageError(
                f"{state.run}: learns {state.task.name}, and {first.run} {first.task.name}: curvatures of two losses "
                f"stand on no one scale; measure each by itself"
            )


def of_part(
    question: Question, objective: Objective, run: str = "", step: int = 0, part: str | None = None
) -> PartCurvature:
    """What a question asks of one function.

    Args:
        question: of what, and how exactly.
        objective: the function.
        run, step, part: whose it is.

    Raises:
        UsageError: the loss is not finite at these weights; and as ``answer_of``.
    """
    words = f"curvature of {run}{f', {part}' if part else ''}" if run else ""
    products = Counted(objective, question.gauss_newton, words)
    size, seed, ask, loss = objective.size, question.seed, question, objective.loss()
    if not math.isfinite(loss):
        raise UsageError(
            f"{run or 'model'}: the loss is {loss:g} at these weights: must be finite; measure another step"
        )
    top, space = None, None
    if ask.eigenvalues:
        top, space = top_eigenvalues(products, size, ask.eigenvalues, seed, ask.tolerance)
    return PartCurvature(
        run,
        step,
        part,
        size,
        loss,
        top,
        trace(products, size, ask.probes, seed, ask.level, space) if ask.probes else None,
        spectral_density(products, size, ask.density, ask.density_probes, seed) if ask.density else None,
        products.number,
    )


def as_json(answer: Answer) -> dict[str, Any]:
    """For the document: the first row's numbers, and all rows."""
    rows = [_row(row) for row in answer.rows]
    return {
        **rows[0],
        "examples": answer.examples,
        "population": answer.population,
        "matrix": answer.matrix,
        "batch_norm": answer.batch_norm or None,
        "seed": answer.seed,
        "rows": rows,
    }


def _row(row: PartCurvature) -> dict[str, Any]:
    top, estimate = row.eigenvalues, row.trace
    return {
        "run": row.run,
        "step": row.step,
        "part": row.part,
        "weights": row.weights,
        "loss": row.loss,
        "eigenvalues": None if top is None else list(top.values),
        "residuals": None if top is None else list(top.residuals),
        "converged": None if top is None else top.converged,
        "trace": None if estimate is None else estimate.value,
        "interval": None if estimate is None else [estimate.low, estimate.high],
        "level": None if estimate is None else estimate.level,
        "probes": None if estimate is None else estimate.probes,
        "products": row.products,
    }
