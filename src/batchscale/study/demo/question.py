"""The demonstration: a large minibatch fails naively and succeeds by the rules, on data that need no download.

Of classification, on scikit-learn's digits, four ways to train the same net for the same epochs, a few seeds each: a
small minibatch (the reference), a large one with the lr left as it was, a large one with the lr scaled linearly at
once, and a large one by the rules (linear scaling, gradual warmup). Of another task three, without the third one; the
rule is the recipe's. Source: Goyal et al. 2017, section 2 and table 2a.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import model_validator

from batchscale.study.grid.question import Variant, variant_cells
from batchscale.study.question import Case, SeededQuestion, flag
from batchscale.study.runner.cell import Cell
from batchscale.words import counted

_LARGE = "minibatch.workers=32"  # workers of 32 images: kn = 1,024 of 1,437 training images
_NO_WARMUP = "learning_rate.warmup.kind=none"
_START_SECONDS, _RUN_SECONDS = 6.0, 5.0  # to import torch; of a run alone on a core (EPYC, torch 2.15.0, 2026-11-29)

_OTHERS_TIME = "one to three minutes on two cores"  # of another task than classification, busy ones included


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


@dataclass(frozen=True)
class Demonstration:
    """Another task's: its embedded recipe, shortened, at two minibatches.

    Attributes:
        recipe: a shipped one.
        overrides: of all runs.
        large: of the large minibatch.
    """

    recipe: str
    overrides: tuple[str, ...]
    large: str

    def variants(self) -> list[Variant]:
        """The small minibatch, the large one with the lr left as it was, the large one by the recipe's rule."""
        about = {way.name: way.about for way in WAYS}
        return [
            Variant(about["small"]),
            Variant(about["unscaled"], (self.large, "learning_rate.scaling=none")),
            Variant(about["rules"], (self.large,)),
        ]


OTHERS = {
    "segmentation": Demonstration(
        "digits-scenes-unet", ("numerics.threads=1", "execution.evaluation_epochs=4"), "minibatch.workers=2"
    ),
    "detection": Demonstration(
        "digits-scenes-detection",
        ("numerics.threads=1", "minibatch.workers=1", "epochs=6"),
        "minibatch.workers=4",
    ),
    "language": Demonstration("topics-transformer", ("numerics.threads=1", "epochs=2"), "minibatch.workers=8"),
}
"""Task: its demonstration; classification has one of its own."""


class Question(SeededQuestion):
    """Does a large minibatch reach the small one's error?"""

    summary: ClassVar = (
        "watch a large minibatch fail naively and succeed by the rules (a minute; of other tasks up to three)"
    )
    about: ClassVar = f"{summary[0].upper()}{summary[1:]}.\n"
    of_recipe: ClassVar = "digits-cnn"
    # 43 steps at kn = 1,024: running averages would lag
    of_overrides: ClassVar = ("numerics.threads=1", "batch_norm.running=recomputed")

    seeds: int = flag("seeds of each way (default 3; of another task than classification 1)", "S", default=None, ge=1)
    task: Literal["classification", "segmentation", "detection", "language"] = flag(
        "what is learned", default="classification"
    )

    @model_validator(mode="before")
    @classmethod
    def _seeds_of_task(cls, words: dict[str, object]) -> dict[str, object]:
        return {"seeds": 1 if words.get("task") in OTHERS else 3, **words}

    @property
    def own_recipe(self) -> tuple[str, tuple[str, ...]]:
        """The task's embedded recipe."""
        other = OTHERS.get(self.task)
        return (self.of_recipe, self.of_overrides) if other is None else (other.recipe, other.overrides)

    def foreword(self, runs: int, jobs: int) -> str:
        """How long it takes, where every run has a core of its own.

        Args:
            runs: that have not ended.
            jobs: runs at once.
        """
        time = _OTHERS_TIME if self.task in OTHERS else f"about {seconds(runs, jobs):.0f} s"
        return f"{counted(runs, 'run')}, {jobs} at once: {time}"


def seconds(runs: int, jobs: int) -> float:
    """About how long so many runs take, each on a core of its own.

    Args:
        runs: how many.
        jobs: runs at once.
    """
    return _START_SECONDS + math.ceil(runs / jobs) * _RUN_SECONDS


def cells(case: Case[Question]) -> list[Cell]:
    """Every way with every seed, a seed after the other."""
    other = OTHERS.get(case.question.task)
    variants = [Variant(way.about, way.overrides) for way in WAYS] if other is None else other.variants()
    return sorted(variant_cells(case, variants), key=lambda cell: cell.recipe.seed)
