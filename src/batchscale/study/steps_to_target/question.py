"""How many steps to a goal, at every minibatch, each with settings of its own.

Source: Shallue et al. 2018, section 3.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, PlainSerializer

from batchscale.build.examples import examples_of
from batchscale.build.planning import share_of
from batchscale.errors import UsageError
from batchscale.recipe import Recipe
from batchscale.study.question import Case, StudyQuestion, flag, read_by
from batchscale.study.rules import Minibatches, check_workers
from batchscale.study.runner.cell import Cell
from batchscale.study.steps_to_target.trials import Goal, parse_goal

Range = tuple[float, float]
MOMENTUM = (0.0, 0.99)
"""Range that is searched where none is asked."""


def parse_range(setting: str, text: str, lowest: float, highest: float) -> Range:
    """LOW..HIGH, or one number for both.

    Args:
        setting: its flag.
        text: the words.
        lowest, highest: what the numbers may be.

    Raises:
        UsageError: not such a range.
    """
    try:
        ends = [float(word) for word in text.split("..", 1)] if text.isascii() else []
    except ValueError:
        ends = []
    low, high = (ends[0], ends[-1]) if ends else (math.nan, math.nan)
    from_zero = low == 0 < high and setting != "--momentum"  # no place for zero on a logarithmic scale
    if not lowest <= low <= high <= highest or (len(ends) == 2 and low == high) or from_zero:
        raise UsageError(
            f"{setting}={text}: must be LOW..HIGH or one number, from {lowest:g} to {highest:g}"
            f"{', LOW above 0' if setting != '--momentum' else ''}; "
            f"write for example {setting} {_EXAMPLES[setting]}"
        )
    return low, high


_EXAMPLES = {"--lr": "1e-3..10", "--momentum": "0..0.99", "--weight-decay": "1e-6..1e-3", "--final-lr": "0.01..1"}


def _read(setting: str, lowest: float, highest: float) -> BeforeValidator:
    """The words of a range."""
    return read_by(lambda text: parse_range(setting, text, lowest, highest))


class Question(StudyQuestion):
    """The goal, the minibatches, and what is searched at each."""

    summary: ClassVar = "steps to a goal against the minibatch"
    about: ClassVar = """\
At every minibatch, search for the settings that reach the goal in the fewest steps, on held-out training images:

  batchscale study steps-to-target digits-cnn --goal 'error<5' --minibatches 2^3..2^10 --trials 32 --jobs 2

Searched, quasi-randomly and log-uniformly: lr / (1 - momentum), momentum, weight decay, and the share of the lr that
is left at the end of the step budget (it falls linearly; 1: it stays). There is no warmup. A trial ends where it
reaches the goal. What is found: the curve against the ideal line, the three regimes, and the critical minibatch.
"""

    goal: Annotated[Goal, read_by(parse_goal), PlainSerializer(lambda goal: goal.words)] = flag(
        "'error<10' (percent), 'loss<0.5', or another score of the task by its name, such as 'iou>80'; quote it", "GOAL"
    )
    minibatches: Minibatches = flag("64,128,256 or 64,128,...,16384 or 2^6..2^14, rising", "LIST")
    trials: int = flag("settings tried at each minibatch", "T", ge=1)
    holdout: int | None = flag(
        "training images held out (default: data.holdout, else a tenth)", "M", default=None, ge=1
    )
    evaluation_steps: int | None = flag(
        "between evaluations (default: a hundredth of the budget)", "S", default=None, ge=1
    )
    min_steps: int = flag("a trial's budget is the recipe's epochs, but at least so many steps", "S", default=200, ge=1)
    lr: Annotated[Range, _read("--lr", 1e-12, 1e12)] | None = flag(
        "range of lr / (1 - momentum), at every minibatch, or one number (default: the recipe's by the square-root "
        "rule, / 32 to x 32)",
        "LOW..HIGH",
        default=None,
    )
    momentum: Annotated[Range, _read("--momentum", 0.0, 0.9999)] | None = flag(
        "range of momentum, or one number (default 0..0.99)", "LOW..HIGH", default=None
    )
    weight_decay: Annotated[Range, _read("--weight-decay", 0.0, 1e3)] = flag(
        "range of weight decay, or one number", "LOW..HIGH", default="1e-6..1e-3"
    )
    final_lr: Annotated[Range, _read("--final-lr", 1e-9, 1.0)] = flag(
        "range of the share of the lr left at the end of the step budget, or one number",
        "LOW..HIGH",
        default="0.01..1",
    )

    def check(self, recipe: Recipe) -> None:
        """Raise where the question is none of this recipe, whatever the data.

        Raises:
            UsageError: one line.
        """
        check_workers(recipe, self.minibatches)
        if self.momentum is not None and not has_momentum(recipe):
            low, high = self.momentum
            raise UsageError(
                f"--momentum={low:g}{'' if low == high else f'..{high:g}'}: optimizer.name={recipe.optimizer.name} "
                f"has none; leave --momentum out"
            )

    def starting_recipe(self, recipe: Recipe, count_images: Callable[[Recipe], int]) -> Recipe:
        """The recipe with a held-out part.

        Args:
            recipe: as asked.
            count_images: recipe -> its training images.

        Raises:
            UsageError: too many are held out.
        """
        data, images = recipe.data, count_images(_whole(recipe))
        held = (
            self.holdout or data.holdout or math.ceil((data.train_images or share_of(data.train_fraction, images)) / 10)
        )
        left = data.train_images or images - held  # data.train_fraction of them are trained on
        if left + held > images or left < 1:
            wanted = f" beside data.train_images={data.train_images}" if data.train_images else ""
            raise UsageError(
                f"--holdout={held}: must leave some of the {images} training {examples_of(recipe)}{wanted}; lower it"
            )
        return recipe.model_copy(update={"data": data.model_copy(update={"holdout": held})})

    def check_begun(self, case: Case[Any], cells: Sequence[Cell], runs: Path) -> None:
        """Raise where trials that are there were evaluated at another interval, or ended at another goal too early.

        Args:
            case: of this question.
            cells: asked for.
            runs: the folder of the runs' folders.

        Raises:
            UsageError: names the interval or the goal that they were trained with.
        """
        from batchscale.study.steps_to_target.search import check_begun, search_of

        check_begun(runs, search_of(case), cells)


def has_momentum(recipe: Recipe) -> bool:
    """Whether the recipe's optimizer has one."""
    return "momentum" in recipe.optimizer.options()


def _whole(recipe: Recipe) -> Recipe:
    """The recipe with all training images."""
    data = {"holdout": 0, "train_images": None, "train_fraction": 1.0}
    return recipe.model_copy(update={"data": recipe.data.model_copy(update=data)})


def images_left(case: Case[Question]) -> int:
    """Training images without those held out."""
    data = case.recipe.data
    return data.train_images or share_of(data.train_fraction, case.count_images(_whole(case.recipe)) - data.holdout)


def cells(case: Case[Question]) -> list[Cell]:
    """All trials of all minibatches, in order.

    Raises:
        UsageError: one line.
    """
    from batchscale.study.steps_to_target.search import search_of  # numpy, optuna: not for a question alone

    return search_of(case).cells()
