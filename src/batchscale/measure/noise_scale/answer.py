"""What `measure noise-scale` answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from batchscale.build.state import State
from batchscale.comm import World
from batchscale.errors import UsageError
from batchscale.measure.function import has_batch_norm
from batchscale.measure.noise_scale.blocks import estimate
from batchscale.measure.noise_scale.gradients import UnitGradients
from batchscale.measure.noise_scale.preconditioner import preconditioner
from batchscale.measure.noise_scale.question import Question
from batchscale.measure.stated import stated_set
from batchscale.noise_scale import NoiseEstimate
from batchscale.records.run import RunRecords
from batchscale.words import counted

_USUAL_EXAMPLES, _USUAL_UNITS = 1024, 20


@dataclass(frozen=True)
class Answer:
    """The noise scale of a state.

    Attributes:
        run: the folder's name.
        step: steps done.
        examples_seen: by then.
        unit: whose gradients: an example's, or a worker's.
        per_unit: n of a worker; 1.
        examples, population: M of the N training examples.
        noun: what these are called.
        weights: numbers that are counted, a shared one once, frozen ones not.
        plain: tr S / |G|^2.
        preconditioned: tr(P S) / (G' P G), of AdamW.
        vectorised: by torch.func, not backward.
    """

    run: str
    step: int
    examples_seen: float
    unit: str
    per_unit: int
    examples: int
    population: int
    noun: str
    weights: int
    plain: NoiseEstimate
    preconditioned: NoiseEstimate | None
    vectorised: bool


def answer_of(question: Question, states: Sequence[State], world: World | None = None) -> Answer:
    """Measure the noise scale of one state.

    Raises:
        UsageError: fewer examples than two units, or more than there are.
    """
    (state,) = states
    of_worker = state.task.unit == "worker" or has_batch_norm(state.model)
    per_unit = state.recipe.minibatch.per_worker if of_worker else 1
    population, noun = len(state.dataset.train), state.task.examples
    count = _count(question, per_unit, population, noun)
    gradients = UnitGradients(state, per_unit, world or World(device=state.device), state.recipe.seed)
    plain, preconditioned = gradients.sums(stated_set(state.dataset.train, count), preconditioner(state))
    return Answer(
        state.run.name,
        state.step,
        RunRecords(state.run).examples_at(
            state.step, state.recipe.minibatch.workers * state.recipe.minibatch.per_worker
        ),
        "worker" if of_worker else "example",
        per_unit,
        count,
        population,
        noun,
        sum(weight.numel() for weight in gradients.weights),
        estimate(plain, per_unit, population, question.level),
        None if preconditioned is None else estimate(preconditioned, per_unit, population, question.level),
        gradients.vectorised,
    )


def _count(question: Question, per_unit: int, population: int, noun: str) -> int:
    """M: whole units."""
    asked = question.examples
    if asked is None:
        asked = min(max(_USUAL_EXAMPLES, _USUAL_UNITS * per_unit), population)
    if asked > population:
        raise UsageError(f"--examples={asked}: must not exceed the {counted(population, 'training example')}; lower it")
    if asked < 2 * per_unit:
        raise UsageError(
            f"--examples={asked}: holds no two units of {per_unit} {noun}, and the noise scale needs two gradients; "
            f"use at least {2 * per_unit}"
        )
    return asked // per_unit * per_unit


def as_json(answer: Answer) -> dict[str, Any]:
    """For the document."""
    numbers = answer.plain.as_json()
    return {
        "step": answer.step,
        "examples_seen": answer.examples_seen,
        **numbers,
        "examples": answer.examples,
        "unit": answer.unit,
        "level": answer.plain.level,
        "per_unit": answer.per_unit,
        "population": answer.population,
        "weights": answer.weights,
        "preconditioned": None if answer.preconditioned is None else answer.preconditioned.as_json(),
    }
