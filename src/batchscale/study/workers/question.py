"""What do k workers make of the loss and the score, on any machine: k stands for as many GPUs.

weak:   k workers of the recipe's n, kn = k n, lr by the recipe's rule;   strong: kn of the recipe, k workers of kn / k

A way says what the lr does beside that: plain (from the first step on, to the last), warmup (gradual), decay (cosine).
"""

from __future__ import annotations

from typing import Any

from batchscale.build.planning import share_of
from batchscale.recipe import Recipe, recipe_from
from batchscale.study.evidence.instrument import measured_alike
from batchscale.study.question import Case
from batchscale.study.rules import check_fits
from batchscale.study.runner.cell import Cell
from batchscale.study.scaling.question import PUBLISHED_WORKERS, STRONG, WEAK, Question

__all__ = ["Question", "cells"]

_LONGEST_WARMUP = 5.0  # epochs


def cells(case: Case[Question]) -> list[Cell]:
    """Weak scaling by every way, and by the first one on every part of the data; strong scaling by the first way.

    Raises:
        UsageError: one line.
    """
    question, recipe, n = case.question, case.recipe, case.recipe.minibatch.per_worker
    question.check(recipe)
    kn, counts = recipe.minibatch.workers * n, workers_of(case)
    shapes = []
    if WEAK in question.modes:
        check_fits(
            tuple(k * n for k in counts), examples_of(case, question.fractions[0]), recipe, "--workers: weak scaling"
        )
        asked = [(way, part) for part in question.fractions for way in question.ways[: 1 if part < 1 else None]]
        shapes += [(WEAK, way, part, k, n) for way, part in asked for k in counts]
    if STRONG in question.modes:
        shapes += [(STRONG, question.ways[0], 1.0, k, kn // k) for k in counts]
    runs = []
    for mode, way, part, k, per_worker in shapes:
        labels = {"mode": mode, "way": way, "fraction": part, "workers": k}
        for seed, seeded in question.seeded(_recipe(case, way, part, k, per_worker)):
            runs.append(Cell({**labels, "seed": seed}, seeded))
    return measured_alike(runs, examples_of(case, question.fractions[0]))


def workers_of(case: Case[Question]) -> tuple[int, ...]:
    """Every k."""
    return case.question.workers_of(case.recipe) or PUBLISHED_WORKERS


def examples_of(case: Case[Question], part: float) -> int:
    """N of a part of the training set."""
    return share_of(part, case.training_images)


def _recipe(case: Case[Question], way: str, part: float, workers: int, per_worker: int) -> Recipe:
    content: dict[str, Any] = case.recipe.model_dump(mode="json")
    warmup = case.question.warmup_epochs or min(case.recipe.epochs / 4, _LONGEST_WARMUP)
    content["minibatch"] |= {"workers": workers, "per_worker": per_worker}
    content["learning_rate"] |= {
        "warmup": {"kind": "gradual", "epochs": warmup} if "warmup" in way else {"kind": "none"},
        "decay": {"kind": "cosine" if "decay" in way else "none"},
    }
    if part < 1:
        content["data"]["train_fraction"] = part
    return recipe_from(content)
