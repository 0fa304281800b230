"""Which warmup does a large minibatch need: none, constant or gradual, beside the reference minibatch.

Source: Goyal et al. 2017, section 2.2, figure 2 (training curves) and table 2a.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from batchscale.errors import UsageError
from batchscale.recipe import Recipe
from batchscale.study.evidence.instrument import measured_alike
from batchscale.study.question import Case, SeededQuestion, flag, read_by
from batchscale.study.rules import Rule, check_fits, check_fixed, parse_rules, recipe_at, workers_of
from batchscale.study.runner.cell import Cell

REFERENCE = "reference"


def parse_kinds(text: str) -> tuple[str, ...]:
    """Kinds of warmup from words such as ``none,gradual``.

    Raises:
        UsageError: an unknown kind, one given twice, or none.
    """
    words = [word.strip() for word in text.split(",")]
    try:
        rules = parse_rules(",".join(f"linear+{word}" for word in words))
    except UsageError:
        rules = ()
    if not rules or any(rule.regime for rule in rules):
        raise UsageError(f"--kinds={text}: must name kinds of warmup, each once; write none,constant,gradual")
    return tuple(rule.warmup for rule in rules)


class Question(SeededQuestion):
    """The large minibatch, and the kinds of warmup."""

    summary: ClassVar = "kinds of warmup at a large minibatch"
    about: ClassVar = """\
Train RECIPE at its reference minibatch, and at a large one with each kind of warmup, a few seeds each
(Goyal et al. 2017, figure 2).

  batchscale study warmup digits-cnn --minibatch 1024 --seeds 3
"""

    minibatch: int = flag("the large minibatch", "KN", ge=1)
    kinds: Annotated[tuple[str, ...], read_by(parse_kinds)] = flag("of warmup", "LIST", default="none,constant,gradual")
    warmup_epochs: float | None = flag("how long (default: the recipe's warmup)", "E", default=None, gt=0)

    def check(self, recipe: Recipe) -> None:
        """Raise where the question is none of this recipe, whatever the data.

        Raises:
            UsageError: one line.
        """
        check_fixed(recipe)
        reference = recipe.learning_rate.reference_minibatch
        if self.minibatch <= reference:
            raise UsageError(
                f"--minibatch={self.minibatch}: must be above learning_rate.reference_minibatch={reference}, "
                f"which it is compared with; use for example --minibatch {8 * reference}"
            )
        if recipe.learning_rate.scaling == "none":
            raise UsageError(
                "learning_rate.scaling=none: the lr has nowhere to warm up to; use learning_rate.scaling=linear or sqrt"
            )
        workers_of(self.minibatch, recipe.minibatch.per_worker, "--minibatch")


def cells(case: Case[Question]) -> list[Cell]:
    """The reference, and the large minibatch with every warmup, with every seed.

    Raises:
        UsageError: one line.
    """
    question, recipe, images = case.question, case.recipe, case.training_images
    question.check(recipe)
    check_fits((question.minibatch,), images, recipe, "--minibatch")
    scaling, reference = recipe.learning_rate.scaling, recipe.learning_rate.reference_minibatch
    ways = {REFERENCE: (reference, Rule(scaling, "none"), "learning_rate.reference_minibatch")}
    ways |= {kind: (question.minibatch, Rule(scaling, kind), "--minibatch") for kind in question.kinds}
    runs = []
    for name, (minibatch, rule, setting) in ways.items():
        k, n = workers_of(minibatch, recipe.minibatch.per_worker, setting)
        for seed, seeded in question.seeded(recipe_at(recipe, k, n, rule, question.warmup_epochs, images)):
            runs.append(Cell({"warmup": name, "minibatch": minibatch, "seed": seed}, seeded))
    return measured_alike(runs, images)
