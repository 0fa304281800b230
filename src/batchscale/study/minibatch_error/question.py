"""How far may the minibatch grow before the error leaves the reference's?

Source: Goyal et al. 2017, section 5.2, figures 1 (error against minibatch), 3 and 4 (curves over the reference's).
"""

from __future__ import annotations

from fractions import Fraction
from typing import ClassVar, Literal

from batchscale.errors import UsageError
from batchscale.recipe import Recipe
from batchscale.study.evidence.instrument import measured_alike
from batchscale.study.measuring import MeasuredQuestion, measured_at_end
from batchscale.study.question import Case, flag
from batchscale.study.regime import regime_factor, stretched, with_steps_of
from batchscale.study.rules import Minibatches, Rules, check_fits, check_workers, recipe_at, rule_of, workers_of
from batchscale.study.runner.cell import Cell


class Question(MeasuredQuestion):
    """The minibatches, the rules, and what counts as without loss."""

    summary: ClassVar = "error, or another score, against minibatch, and its elbow"
    about: ClassVar = """\
Train RECIPE at several minibatches for the same epochs, a few seeds each, and find the elbow: the largest minibatch
whose mean score (the error; of another task its own score) is no worse than the reference's by more than --tolerance
(Goyal et al. 2017, figure 1).

  batchscale study minibatch-error digits-cnn --minibatches 32,64,...,1024 --rules none,sqrt,linear+gradual

A minibatch kn keeps the recipe's n images a worker: k = kn / n workers. Below n it is one worker of kn images.
A rule is a scaling (none, sqrt, linear, adam_sde, half_life, half_life_sqrt), alone or with a warmup (linear+gradual,
linear+constant). At its end +regime trains every minibatch for the steps of the reference in place of its epochs
(Hoffer et al. 2017): what falls behind without it and not with it has had too few updates. It costs kn / reference
times the examples.
"""

    minibatches: Minibatches = flag("64,128,256 or 64,128,...,16384 or 2^6..2^14, rising", "LIST")
    rules: Rules | None = flag("rules of the lr to compare (default: the recipe's own)", "LIST", default=None)
    reference: int | None = flag(
        "the minibatch to compare with (default: learning_rate.reference_minibatch, or the smallest)",
        "KN",
        default=None,
        ge=1,
    )
    tolerance: float | None = flag(
        "how much worse still counts as without loss, in the score's unit (default: 0.5 points of a score in %, else "
        "1 % of the reference's)",
        "DIFFERENCE",
        default=None,
        ge=0,
    )
    statistic: Literal["final", "median5"] = flag(
        "score of a run: of its last evaluation, or the median of its last five", default="final"
    )
    warmup_epochs: float | None = flag("of rules that warm up (default: the recipe's)", "E", default=None, gt=0)

    def check(self, recipe: Recipe) -> None:
        """Raise where the question is none of this recipe, whatever the data.

        Raises:
            UsageError: one line.
        """
        check_workers(recipe, self.minibatches)
        if self.reference is not None and self.reference not in self.minibatches:
            raise UsageError(
                f"--reference={self.reference}: must be one of --minibatches; "
                f"use one of {','.join(map(str, self.minibatches))}"
            )

    def compared_with(self, recipe: Recipe) -> int:
        """The reference minibatch: asked, or the recipe's, or the smallest where that is not studied."""
        usual = recipe.learning_rate.reference_minibatch
        return self.reference or (usual if usual in self.minibatches else self.minibatches[0])


def cells(case: Case[Question]) -> list[Cell]:
    """Every rule at every minibatch with every seed; runs that are the same have the same recipe.

    Raises:
        UsageError: one line.
    """
    question, images = case.question, case.training_images
    question.check(case.recipe)
    check_fits(question.minibatches, images, case.recipe)
    runs = []
    per_worker = case.recipe.minibatch.per_worker
    reference = workers_of(question.compared_with(case.recipe), per_worker)
    for rule in question.rules or (rule_of(case.recipe),):
        for minibatch in question.minibatches:
            k, n = workers_of(minibatch, per_worker)
            factor = regime_factor(case.recipe, reference, (k, n), images) if rule.regime else Fraction(1)
            warmup = question.warmup_epochs and stretched(question.warmup_epochs, factor)
            recipe = measured_at_end(
                recipe_at(with_steps_of(case.recipe, factor), k, n, rule, warmup, images), question.measure
            )
            for seed, seeded in question.seeded(recipe):
                runs.append(Cell({"minibatch": minibatch, "rule": rule.name, "seed": seed}, seeded))
    return measured_alike(runs, images)
