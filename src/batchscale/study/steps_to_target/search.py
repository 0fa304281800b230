"""What is run: for every minibatch T trials of the recipe, each with settings of its own, for a budget of steps.

budget(kn) = max(ceil(epochs N / kn), least steps)      steps of a trial that never reaches the goal
lr in      eta / (1 - m) sqrt(kn / reference) [1 / 32, 32]      where no range is given: holds the linear rule and an
                                                         unscaled lr up to a minibatch 1024 times the reference

A trial that passes the goal ends there; its schedule is that of the whole budget all the same. Its evaluations
recompute batch norm's statistics: running averages would add about ten steps of their own to every minibatch.
Source: Shallue et al. 2018, section 3.2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from batchscale.build.planning import plan_of
from batchscale.errors import FolderError, UsageError
from batchscale.recipe import Recipe, load_recipe, recipe_from
from batchscale.records import Result, read_result
from batchscale.records.folder import holds_run
from batchscale.study.evidence.instrument import recomputed
from batchscale.study.question import Case
from batchscale.study.rules import check_fits, check_workers, workers_of
from batchscale.study.runner.cell import Cell, Outcome
from batchscale.study.steps_to_target.question import MOMENTUM, Question, Range, has_momentum, images_left
from batchscale.study.steps_to_target.space import Dimension, Space
from batchscale.study.steps_to_target.trials import Goal, Reached, Trial, evaluations_of, summarize
from batchscale.words import counted

_LR_FACTOR = 32.0
_EVALUATIONS = 100  # of a whole budget, where no interval is given
_CONSTANT = 0.9995  # a final share of the lr that rounds to 1: no decay


@dataclass(frozen=True)
class Search:
    """A search for the steps to a goal.

    Args:
        question: what is asked.
        recipe: with data.holdout above 0.
        training_images: N, without those held out.

    Raises:
        UsageError: the recipe's minibatch grows, or one does not fit.
    """

    question: Question
    recipe: Recipe
    training_images: int

    def __post_init__(self) -> None:
        check_workers(self.recipe, self.minibatches)
        check_fits(self.minibatches, self.training_images, self.recipe)

    @property
    def goal(self) -> Goal:
        """What to reach."""
        return self.question.goal

    @property
    def minibatches(self) -> tuple[int, ...]:
        """kn, rising."""
        return self.question.minibatches

    @property
    def has_momentum(self) -> bool:
        """Whether the recipe's optimizer has one."""
        return has_momentum(self.recipe)

    def lr_range(self, minibatch: int) -> Range:
        """Of lr / (1 - momentum)."""
        if self.question.lr is not None:
            return self.question.lr
        entry, momentum = self.recipe.learning_rate, self.recipe.optimizer.options().get("momentum", 0.0)
        middle = entry.reference / (1 - momentum) * math.sqrt(minibatch / entry.reference_minibatch)
        return float(f"{middle / _LR_FACTOR:.3g}"), float(f"{middle * _LR_FACTOR:.3g}")

    def space(self, minibatch: int) -> Space:
        """What is searched at a minibatch."""
        low, high = self.question.momentum or MOMENTUM
        final_lr = self.question.final_lr
        momentum = [Dimension("momentum", 1 - high, 1 - low, "high" if low == 0 else None)]
        return Space(
            (
                Dimension("effective_lr", *self.lr_range(minibatch)),
                *(momentum if self.has_momentum else []),
                Dimension("weight_decay", *self.question.weight_decay),
                Dimension("final_lr", *final_lr, "high" if final_lr[1] == 1 else None),
            )
        )

    def budget_steps(self, minibatch: int) -> int:
        """The most steps of a trial."""
        return max(
            math.ceil(Fraction(str(self.recipe.epochs)) * self.steps_per_epoch(minibatch)), self.question.min_steps
        )

    def steps_per_epoch(self, minibatch: int) -> Fraction:
        """N / kn."""
        return plan_of(self._at(minibatch, {}), self.training_images).phases[0].steps_per_epoch

    def interval_steps(self, minibatch: int) -> int:
        """Between evaluations."""
        return self.question.evaluation_steps or max(self.budget_steps(minibatch) // _EVALUATIONS, 1)

    def _at(self, minibatch: int, changes: dict[str, Any]) -> Recipe:
        workers, per_worker = workers_of(minibatch, self.recipe.minibatch.per_worker)
        content = self.recipe.model_dump(mode="json")
        content["minibatch"] = {"workers": workers, "per_worker": per_worker}
        for group, entries in changes.items():
            content[group] = {**content[group], **entries} if isinstance(entries, dict) else entries
        return recipe_from(content)

    def trial_recipe(self, minibatch: int, settings: dict[str, float]) -> Recipe:
        """The recipe of one trial."""
        momentum, final = settings.get("momentum", 0.0), settings["final_lr"]
        lr = float(f"{settings['effective_lr'] * (1 - momentum):.4g}")
        falls = {"kind": "polynomial", "power": 1.0, "final": final} if final < _CONSTANT else {"kind": "none"}
        options: dict[str, Any] = {"momentum": momentum, "momentum_changes": []} if self.has_momentum else {}
        if momentum == 0 and self.has_momentum:
            options["nesterov"] = False
        elif "nesterov" in self.recipe.optimizer.options():
            options["nesterov"] = self.recipe.optimizer.options()["nesterov"]
        changes = {
            "epochs": _epochs(self.budget_steps(minibatch) / self.steps_per_epoch(minibatch)),
            "optimizer": {**options, "weight_decay": settings["weight_decay"]},
            "learning_rate": {
                "reference": lr,
                "reference_minibatch": minibatch,
                "scaling": "none",
                "warmup": {"kind": "none"},
                "decay": falls,
            },
            "execution": {
                "evaluation_steps": self.interval_steps(minibatch),
                **self.goal.stops,
            },
        }
        return recomputed(self._at(minibatch, changes))

    def cells(self) -> list[Cell]:
        """All trials of all minibatches, in order."""
        return [
            Cell({"minibatch": kn, "trial": number, **settings}, self.trial_recipe(kn, settings))
            for kn in self.minibatches
            for number, settings in enumerate(self.space(kn).draw(self.question.trials, self.recipe.seed, kn))
        ]

    def points(self, outcomes: Sequence[Outcome]) -> list[Reached]:
        """What every minibatch reached.

        Args:
            outcomes: of ``cells()``, in their order.
        """
        trials = [self._trial(outcome) for outcome in outcomes]
        count = self.question.trials
        parts = [trials[i : i + count] for i in range(0, len(trials), count)]
        return [
            summarize(part, self.goal, self.budget_steps(kn), self.interval_steps(kn))
            for kn, part in zip(self.minibatches, parts, strict=True)
        ]

    def _trial(self, outcome: Outcome) -> Trial:
        labels = outcome.cell.labels
        minibatch = labels["minibatch"]
        settings = {d.name: labels[d.name] for d in self.space(minibatch).dimensions}
        lines = evaluations_of(outcome.folder, self.goal)
        status, folder = outcome.status, f"runs/{outcome.folder.name}"
        borders = self.space(minibatch).borders(settings)
        return Trial(minibatch, labels["trial"], settings, borders, status, lines, folder)


def search_of(case: Case[Question]) -> Search:
    """The search of a question.

    Raises:
        UsageError: as ``Search``.
    """
    return Search(case.question, case.recipe, images_left(case))


def _epochs(epochs: Fraction) -> float:
    """Rounded down, so that the steps are no more than asked for."""
    return float(math.floor(epochs * 10**9) / 10**9)


def check_begun(runs: Path, search: Search, cells: Sequence[Cell]) -> None:
    """Raise where runs that are there cannot answer: evaluated at another interval, or ended by another goal too early.

    Args:
        runs: the folder of the runs' folders.
        search: what is asked for.
        cells: its cells.

    Raises:
        UsageError: names the interval or the goal that they were trained with.
    """
    for cell in cells:
        folder = runs / cell.key
        try:
            begun = load_recipe(folder / "recipe.yaml") if holds_run(folder) else None
        except UsageError:  # damaged: the study says so
            continue
        if begun is None:
            continue
        if begun.execution.evaluation_steps != cell.recipe.execution.evaluation_steps:
            raise UsageError(_other_interval(runs.parent, search, cell, begun.execution.evaluation_steps))
        _check_goal(folder, search.goal)


def _other_interval(out: Path, search: Search, cell: Cell, begun: int | None) -> str:
    kn, interval = cell.minibatch_images, cell.recipe.execution.evaluation_steps
    usual = replace(search, question=search.question.model_copy(update={"evaluation_steps": None}))
    way = "leave --evaluation-steps out" if begun == usual.interval_steps(kn) else f"give --evaluation-steps {begun}"
    return (
        f"{out}: holds trials evaluated every {counted(begun or 0, 'step')} at kn = {kn}, not {interval}; "
        f"{way}, or give another --out DIR (nothing was changed)"
    )


def _check_goal(folder: Path, goal: Goal) -> None:
    try:
        result = read_result(folder)
    except FolderError:  # none yet, or one that will be trained again
        return
    _check_score(result, goal)
    content, lines = result.model_dump(), evaluations_of(folder, goal)
    stopped = content.get("stopped_below") or content.get("stopped_at")
    if stopped and not any(goal.meets(goal.value(line)) for line in lines):
        raise UsageError(
            f"{folder.parent.parent}: holds trials that ended at another goal, {stopped}, short of {goal.text}; "
            f"give another --out DIR (nothing was changed)"
        )


def _check_score(result: Result, goal: Goal) -> None:
    """Raise where a finished run has not the goal's score, or it is better the other way.

    A run that is still to be trained is checked with its recipe, as any other.
    """
    judged_by = result.judged_by
    scores = (result.model_extra or {}).get("scores", {judged_by.name: judged_by.value})  # earlier versions: the error
    if not goal.is_of_task or result.status == "failed":
        return
    if scores and goal.measure not in scores:  # none in a run that diverged before its first evaluation
        raise UsageError(
            f"--goal={goal.words!r}: the trials have no score {goal.measure!r}; they have {', '.join(scores)}; "
            f"name one of these"
        )
    if judged_by.name == goal.measure and judged_by.better != goal.better:
        raise UsageError(
            f"--goal={goal.words!r}: {goal.measure} is better where it is {judged_by.better}: "
            f"use {goal.measure}{'<' if judged_by.better == 'lower' else '>'}{goal.bound:g}"
        )
