"""What `measure sharpness` answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from batchscale.build.state import State
from batchscale.comm import World
from batchscale.errors import UsageError
from batchscale.measure.objective import Objective
from batchscale.measure.sharpness.question import MOST_REPEATS, Question
from batchscale.measure.sharpness.sharpness import Searched, Sharpness, check_room, sharpness
from batchscale.task import ScoreKind

_USUAL_EXAMPLES = 5000


@dataclass(frozen=True)
class OfRun:
    """A run's numbers.

    Attributes:
        run: the folder's name.
        part: of its net; None for the whole.
        step: steps done.
        minibatch: kn of the first steps.
        weights: numbers that are moved, a shared one once, frozen ones not.
        loss: f(x), over the stated set.
        test_loss, test_score: of the same weights, batch norm by its running averages.
        numbers: of sharpness.
    """

    run: str
    part: str | None
    step: int
    minibatch: int
    weights: int
    loss: float
    test_loss: float
    test_score: float
    numbers: tuple[Sharpness, ...]

    @property
    def name(self) -> str:
        """Of the run, and its part."""
        return self.run if self.part is None else f"{self.run}, {self.part}"


@dataclass(frozen=True)
class Answer:
    """The sharpness of runs.

    Attributes:
        runs: in the order asked for, and of each every part.
        examples, population: M of the N training examples of the first run.
        noun: what these are called.
        score: that the task is judged by.
        searched: where, and how.
        batch_norm: averages, or recomputed.
        seed: of the random subspaces.
    """

    runs: tuple[OfRun, ...]
    examples: int
    population: int
    noun: str
    score: ScoreKind
    searched: Searched
    batch_norm: str
    seed: int


def answer_of(question: Question, states: Sequence[State], world: World | None = None) -> Answer:
    """Measure the sharpness of the states of runs.

    Args:
        question: what is asked.
        states: of runs that share a task.
        world: the processes that share the chunks; None for this one alone.

    Raises:
        UsageError: runs of different tasks, more examples than there are, or a subspace that cannot be had.
    """
    first = states[0]
    population, noun = len(first.dataset.train), first.task.examples
    count = question.examples or min(_USUAL_EXAMPLES, *(len(state.dataset.train) for state in states))
    searched = searched_of(question)
    for state in states:
        if state.task.score != first.task.score:
            raise UsageError(
                f"{state.run}: is judged by {state.task.score.name}, and {first.run} by {first.task.score.name}: runs "
                f"on one page must share a task; measure them one by one"
            )
    asked = [(state, part) for state in states for part in question.parts or (None,)]
    objectives = [_objective(question, state, part, count, world) for state, part in asked]
    for objective in objectives:  # all, before minutes are spent on the first
        check_room(searched, objective.size)
    runs = tuple(_of_run(*which, one, searched) for which, one in zip(asked, objectives, strict=True))
    return Answer(runs, count, population, noun, first.task.score, searched, question.batch_norm, question.seed)


def _objective(question: Question, state: State, part: str | None, count: int, world: World | None) -> Objective:
    settings: dict[str, Any] = {"precision": question.precision, "parameters": None if part is None else [part]}
    if question.batch_norm == "recomputed":  # a large minibatch's n may exceed the stated set
        settings |= {"batch_norm": "recomputed", "per_worker": min(state.recipe.minibatch.per_worker, count)}
    return Objective.of(state, count, question.chunk, world, **settings)


def searched_of(question: Question) -> Searched:
    """What a question has searched."""
    return Searched(
        question.epsilon,
        ("keskar", "adaptive") if question.form == "both" else (question.form,),
        question.space != "subspace",
        question.subspace if question.space != "full" else 0,
        question.repeats,
        question.iterations,
        question.level,
        question.search == "plain",
        MOST_REPEATS * question.seed,
    )


def _of_run(state: State, part: str | None, objective: Objective, searched: Searched) -> OfRun:
    numbers = sharpness(objective, searched, f"sharpness of {state.run.name}")
    chunk = state.recipe.numerics.evaluation_chunk
    test = Objective(state.model, state.task, state.dataset.test, state.normalizer, chunk=chunk, world=objective.world)
    test_loss, test_score = test.evaluated()
    minibatch = state.recipe.minibatch
    return OfRun(
        state.run.name,
        part,
        state.step,
        minibatch.workers * minibatch.per_worker,
        objective.size,
        numbers[0].searches[0].start,
        test_loss,
        test_score,
        tuple(numbers),
    )


def as_json(answer: Answer) -> dict[str, Any]:
    """For the document: the first number, then all of them, and the runs."""
    rows = [_row(run, number) for run in answer.runs for number in run.numbers]
    return {
        **rows[0],
        "examples": answer.examples,
        "population": answer.population,
        "level": answer.searched.level,
        "most_iterations": answer.searched.iterations,
        "search": "plain" if answer.searched.plain else "scaled",
        "batch_norm": answer.batch_norm,
        "seed": answer.seed,
        "rows": rows,
        "runs": [_run(run, answer.score) for run in answer.runs],
    }


def _row(run: OfRun, number: Sharpness) -> dict[str, Any]:
    return {
        "run": run.run,
        "part": run.part,
        "step": run.step,
        "form": number.form,
        "subspace": number.subspace,
        "epsilon": number.epsilon,
        "sharpness": number.value,
        "interval": None if number.interval is None else list(number.interval),
        "values": number.values,
        "iterations": [search.iterations for search in number.searches],
        "evaluations": [search.evaluations for search in number.searches],
        "limited": number.limited,
        "at_bound": [search.at_bound for search in number.searches],
    }


def _run(run: OfRun, score: ScoreKind) -> dict[str, Any]:
    return {
        "run": run.run,
        "part": run.part,
        "step": run.step,
        "minibatch": run.minibatch,
        "weights": run.weights,
        "loss": run.loss,
        "test_loss": run.test_loss,
        f"test_{score.key}": run.test_score,
    }
