"""The demonstration: a large minibatch fails naively and succeeds by the rules, on scikit-learn's digits.

Four ways to train the same net for the same epochs, a few seeds each: a small minibatch (the reference), a
large one with the lr left as it was, a large one with the lr scaled linearly at once, and a large one by the
rules (linear scaling, gradual warmup). Source: Goyal et al. 2017, section 2 and table 2a.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from batchscale.study.grid.question import Variant, variant_cells
from batchscale.study.question import Case, SeededQuestion, flag
from batchscale.study.runner.cell import Cell
from batchscale.words import counted

_LARGE = "minibatch.workers=32"  # workers of 32 images: kn = 1,024 of 1,437 training images
_NO_WARMUP = "learning_rate.warmup.kind=none"
_START_SECONDS, _RUN_SECONDS = 6.0, 5.0  # to import torch; of a run alone on a core (EPYC, torch 2.15.0, 2026-11-29)


@dataclass(frozen=True)
class DemoWay:
    """One way to train: its name in documents, its words for people, its overrides."""

    name: str
    about: str
    overrides: tuple[str, ...]


WAYS = (
    DemoWay("small", "small minibatch, the reference", (_NO_WARMUP,)),
    DemoWay("unscaled", "large minibatch, lr left unscaled", (_LARGE, "learning_rate.scaling=none", _NO_WARMUP)),
    DemoWay("no-warmup", "large minibatch, lr scaled, no warmup", (_LARGE, _NO_WARMUP)),
    DemoWay("rules", "large minibatch by the rules: lr scaled, gradual warmup", (_LARGE,)),
)


class Question(SeededQuestion):
    """Does a large minibatch reach the small one's error?"""

    summary: ClassVar = "watch a large minibatch fail naively and succeed by the rules (about a minute)"
    about: ClassVar = f"{summary[0].upper()}{summary[1:]}.\n"
    of_recipe: ClassVar = "digits-cnn"
    # 43 steps at kn = 1,024: running averages would lag
    of_overrides: ClassVar = ("numerics.threads=1", "batch_norm.running=recomputed")

    seeds: int = flag("seeds of each way", "S", default=3, ge=1)

    def foreword(self, runs: int, jobs: int) -> str:
        """How long it takes, where every run has a core of its own.

        Args:
            runs: that have not ended.
            jobs: runs at once.
        """
        return f"{counted(runs, 'run')}, {jobs} at once: about {seconds(runs, jobs):.0f} s"


def seconds(runs: int, jobs: int) -> float:
    """About how long so many runs take, each on a core of its own.

    Args:
        runs: how many.
        jobs: runs at once.
    """
    return _START_SECONDS + math.ceil(runs / jobs) * _RUN_SECONDS


def cells(case: Case[Question]) -> list[Cell]:
    """Every way with every seed, a seed after the other."""
    variants = [Variant(way.about, way.overrides) for way in WAYS]
    return sorted(variant_cells(case, variants), key=lambda cell: cell.recipe.seed)
