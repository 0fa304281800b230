"""The runs of a study of branches, in three stages: the trunk, its branches, and those of them that go on.

A branch that has not reached the loss of factor 1 where the window ends goes on to twice the window, as a branch of
itself: what it has trained is not trained again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

from batchscale.build.planning import plan_of
from batchscale.build.trunk import Trunk, run_plan, run_schedule
from batchscale.errors import RecipeError, UsageError
from batchscale.recipe import Recipe
from batchscale.study.branch.curve import evaluated
from batchscale.study.branch.question import Question
from batchscale.study.branch.recipes import branch_recipe, longer_recipe, minibatch_of, trunk_recipe
from batchscale.study.question import Case
from batchscale.study.runner.cell import Cell, Outcome

CONTROLS = (0.5, 2.0)
"""Factors on the lr of branches of factor 1: what the trunk's own lr is worth."""
TRUNK, BRANCH, CONTROL, LONGER = "trunk", "branch", "control", "longer"
"""Parts of a study, as its cells are labelled."""


def first_cells(case: Case[Question]) -> list[Cell]:
    """The trunks; of a run that is there its branches.

    Raises:
        UsageError: one line.
    """
    _check(case)
    if case.run is not None:
        return list(_branches(case, _trunks_of_run(case)))
    recipes = {lr: _trunk(case, lr) for lr in case.question.lr_sweep or (1.0,)}
    for recipe in recipes.values():  # what cannot branch is said before anything is trained
        list(_branches(case, [Trunk("", step, "", recipe) for step in case.question.at]))
    return [
        Cell({"part": TRUNK, "step": case.question.at[-1], "factor": 1, "lr_factor": lr}, recipe)
        for lr, recipe in recipes.items()
    ]


def following(case: Case[Question], outcomes: Sequence[Outcome]) -> list[Cell]:
    """The runs that follow from those that have ended.

    Args:
        case: of the study.
        outcomes: so far.
    """
    parts = {outcome.cell.labels["part"] for outcome in outcomes}
    if parts == {TRUNK}:
        best = best_trunk(case, outcomes)
        if best is None:
            return []
        return list(_branches(case, [Trunk(str(best.folder), step, "", best.cell.recipe) for step in case.question.at]))
    return [] if LONGER in parts else list(_longer(case, outcomes))


def best_trunk(case: Case[Question], outcomes: Sequence[Outcome]) -> Outcome | None:
    """The trunk with the lowest loss at the last checkpoint, of those that came to it; None where none did."""
    trunks = [outcome for outcome in outcomes if outcome.cell.labels["part"] == TRUNK and outcome.status == "done"]
    return min(trunks, key=lambda outcome: trunk_loss(outcome, case.question.at[-1]), default=None)


def trunk_loss(outcome: Outcome, step: int) -> float:
    """Of a trunk at one of its checkpoints; infinite where it did not come so far."""
    return evaluated(outcome.folder).get(step, (math.inf, ()))[0]


def _check(case: Case[Question]) -> None:
    """Raise where the data are too small for a minibatch, or the trunk does not come to a checkpoint."""
    question, images = case.question, case.training_images
    question.check(case.recipe)
    window = question.window_of(case.recipe)
    if window.largest > images:
        fitting = [f for f in window.factors if f * window.minibatch <= images]
        raise UsageError(
            f"--factors: factor {window.factors[-1]} is a minibatch of {window.largest}, more than the {images} "
            f"training examples; the largest factor given that fits is {fitting[-1] if fitting else 'none'}"
        )
    steps = plan_of(case.recipe, images).total_steps
    if case.run is None and question.at[-1] > steps:
        raise UsageError(
            f"--at: step {question.at[-1]} lies beyond the recipe's last step, {steps}; name an earlier one, or give "
            f"epochs={question.at[-1] * minibatch_of(case.recipe) / images:.4g} or more"
        )


def _trunk(case: Case[Question], lr_factor: float) -> Recipe:
    question = case.question
    return trunk_recipe(case.recipe, question.window_of(case.recipe), question.at, case.training_images, lr_factor)


def _trunks_of_run(case: Case[Question]) -> list[Trunk]:
    """The checkpoints of a run that is there.

    Raises:
        UsageError: one is not, or the run cannot be branched.
    """
    from batchscale.run.branch import read_trunk
    from batchscale.run.job import BranchPoint

    assert case.run is not None
    trunks = [read_trunk(BranchPoint(case.run, step))[0] for step in case.question.at]
    kn = case.question.window_of(case.recipe).minibatch
    for trunk in trunks:
        seen = trunk.plan(case.training_images).images(trunk.step)
        if seen != trunk.step * kn:
            raise UsageError(
                f"{case.run}: {trunk.step} steps of it are {seen} training examples, not {trunk.step} x {kn}: it is a "
                f"branch whose minibatch is not its trunk's, and this study needs one minibatch from the first step "
                f"on; give a run by itself"
            )
    return trunks


def _branches(case: Case[Question], trunks: Sequence[Trunk]) -> Iterator[Cell]:
    """All branches, and the controls of factor 1."""
    question = case.question
    window, rules = question.window_of(case.recipe), question.rules_of(case.recipe)
    wanted = [(BRANCH, factor, rule, 1.0) for factor in window.factors for rule in rules]
    wanted += [(CONTROL, 1, rules[0], lr_factor) for lr_factor in CONTROLS]
    for trunk in trunks:
        for part, factor, rule, lr_factor in wanted:
            for seed in question.branch_seeds:
                recipe = _branch(case, trunk, factor, rule, seed, lr_factor)
                labels = {"part": part, "step": trunk.step, "factor": factor, "rule": rule, "seed": seed}
                first = trunk.step * window.minibatch / case.training_images
                plan = run_plan(recipe, case.training_images, trunk)
                lr = float(f"{run_schedule(recipe, plan, trunk)(trunk.step):.6g}")
                yield Cell({**labels, "lr_factor": lr_factor, "lr": lr}, recipe, trunk=trunk, first_epoch=first)


def _branch(case: Case[Question], trunk: Trunk, factor: int, rule: str, seed: int, lr_factor: float) -> Recipe:
    """The recipe of one branch.

    Raises:
        UsageError: the rule cannot be at this factor, or the trunk does not allow it.
    """
    question = case.question
    window, images = question.window_of(case.recipe), case.training_images
    try:
        recipe = branch_recipe(trunk, window, factor, rule, seed, question.warmup, images, lr_factor)
    except RecipeError as error:
        raise UsageError(f"--factors: factor {factor}: {error}{_that_works(case, trunk, factor, rule)}") from None
    trunk.check(recipe)
    return recipe


def _that_works(case: Case[Question], trunk: Trunk, factor: int, rule: str) -> str:
    """Which smaller factor can be, as the end of a sentence."""
    window, warmup = case.question.window_of(case.recipe), case.question.warmup
    for smaller in [other for other in reversed(window.factors) if 1 < other < factor]:
        with contextlib.suppress(RecipeError):
            branch_recipe(trunk, window, smaller, rule, 1, warmup, case.training_images)
            return f"; the largest factor given that works is {smaller}"
    return ""


def _longer(case: Case[Question], outcomes: Sequence[Outcome]) -> Iterator[Cell]:
    """The branches that have not had the loss of factor 1 by the end of the window, from there on."""
    window = case.question.window_of(case.recipe)
    branches = [outcome for outcome in outcomes if outcome.cell.labels["part"] == BRANCH]
    paths = [[(step, loss) for step, (loss, _) in sorted(evaluated(each.folder).items())] for each in branches]
    ended = [(each, path) for each, path in zip(branches, paths, strict=True) if each.status == "done" and path]
    goals = {_pair(each): path[-1][1] for each, path in ended if each.cell.labels["factor"] == 1}
    for outcome, path in ended:
        cell, goal = outcome.cell, goals.get(_pair(outcome), math.inf)
        if not math.isfinite(goal) or cell.trunk is None or any(loss <= goal for _, loss in path):
            continue
        steps = window.examples // cell.minibatch_images
        branch = Trunk(str(outcome.folder), cell.trunk.step + steps, "", cell.recipe, cell.trunk)
        recipe = longer_recipe(branch, window, case.training_images, goal)
        first = cell.first_epoch + window.examples / case.training_images
        yield dataclasses.replace(
            cell, labels={**cell.labels, "part": LONGER}, recipe=recipe, trunk=branch, first_epoch=first
        )


def _pair(outcome: Outcome) -> tuple[Any, ...]:
    """What a branch shares with the one of factor 1 that it is compared with."""
    return tuple(outcome.cell.labels[name] for name in ("step", "rule", "seed"))
