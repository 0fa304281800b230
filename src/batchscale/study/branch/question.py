"""How large may the minibatch be after so many steps? Branches of one trunk tell, a window of examples long.

Source: Merrill et al. 2025, "Critical batch size revisited" (branched training).
"""

from __future__ import annotations

import itertools
import re
import typing
from collections.abc import Callable, Sequence
from typing import Annotated, Any, ClassVar

from batchscale.errors import RecipeError, UsageError
from batchscale.recipe import Recipe
from batchscale.recipe.load import identity
from batchscale.recipe.schema import ScalingName
from batchscale.study.branch.recipes import minibatch_of
from batchscale.study.branch.window import Window, usual_window
from batchscale.study.question import Case, StudyQuestion, flag, read_by
from batchscale.study.rules import check_fixed
from batchscale.study.runner.cell import Cell, Outcome

_RULES = typing.get_args(ScalingName)
_THREE = "0.5,1,2"


def _rising(setting: str, example: str) -> Callable[[str], tuple[int, ...]]:
    """A reader of whole numbers that rise, such as ``1,2,4,8``."""

    def read(text: str) -> tuple[int, ...]:
        words = [word.strip() for word in text.split(",")]
        numbers = [int(word) for word in words if re.fullmatch(r"[0-9]{1,12}", word)]
        rises = all(a < b for a, b in itertools.pairwise(numbers))
        if len(numbers) < len(words) or numbers[0] < 1 or not rises:
            raise UsageError(
                f"{setting}={text}: must be whole numbers of at least 1 that rise; write for example {setting} "
                f"{example}"
            )
        return tuple(numbers)

    return read


def _rule_names(text: str) -> tuple[str, ...]:
    words = tuple(word.strip() for word in text.split(","))
    for word in words:
        if word not in _RULES:
            raise UsageError(
                f"--rules: {word!r} is no rule of learning_rate.scaling; the rules are {', '.join(_RULES)}"
            )
    if len(set(words)) < len(words):
        raise UsageError(f"--rules={text}: a rule stands twice; name each once")
    return words


def _multiples(text: str) -> tuple[float, ...]:
    words = [word.strip() for word in text.split(",")]
    numbers = [float(word) for word in words if re.fullmatch(r"[0-9]{0,6}(\.[0-9]{1,9})?", word) and word]
    if len(numbers) < len(words) or numbers[0] <= 0 or not all(a < b for a, b in itertools.pairwise(numbers)):
        raise UsageError(
            f"--lr-sweep={text}: must be multiples of the recipe's lr, above 0 and rising; write for example "
            f"--lr-sweep {_THREE}"
        )
    return tuple(numbers)


class Question(StudyQuestion):
    """Where branches begin, how large their minibatches are, how long they train, and what counts as without loss."""

    summary: ClassVar = "the critical minibatch after so many steps, from branches of one run"
    of_runs: ClassVar = True
    about: ClassVar = """\
Train RECIPE once (the trunk), or take a RUN that kept its checkpoints, and branch from its checkpoints: each branch
goes on at f times the trunk's minibatch, for the same examples in the same order at every factor.

  batchscale study branch topics-transformer --at 200,800 --factors 1,4,16 --seeds 3

Found after every checkpoint: the largest minibatch without loss, and where half of the efficiency is left: where a
branch needs twice the examples that factor 1 needs. Losses are those of averaged weights on the evaluation set.
"""

    at: Annotated[tuple[int, ...], read_by(_rising("--at", "100,500,1500"))] = flag(
        "steps of the trunk, at whose checkpoints branches begin", "STEPS"
    )
    factors: Annotated[tuple[int, ...], read_by(_rising("--factors", "1,2,4,8"))] = flag(
        "of the trunk's minibatch, rising; factor 1 is always trained", "LIST", default="1,2,4,8"
    )
    rules: Annotated[tuple[str, ...], read_by(_rule_names)] | None = flag(
        "scaling rules to compare, as in learning_rate.scaling (default: the recipe's own)", "LIST", default=None
    )
    window: int | None = flag(
        "examples that a branch trains on: a multiple of the largest factor's minibatch (default: 64 of these)",
        "EXAMPLES",
        default=None,
        ge=1,
    )
    seeds: int = flag("branches of each factor, each with its own order of examples", "S", default=5, ge=1)
    tolerance: float = flag("in percent of factor 1's loss", "PERCENT", default=1.0, gt=0, le=100)
    lr_sweep: Annotated[tuple[float, ...], read_by(_multiples)] | None = flag(
        f"train the trunk at these multiples of its lr, and branch from the best ({_THREE} where no list is given)",
        "LIST",
        default=None,
        bare=_THREE,
    )
    warmup: int = flag(
        "examples over which a branch's lr goes from the trunk's to its own (0: at once)", "EXAMPLES", default=0, ge=0
    )

    def check(self, recipe: Recipe) -> None:
        """Raise where the question is none of this recipe, whatever the data.

        Raises:
            UsageError: one line.
        """
        check_fixed(recipe)
        if recipe.data.partial == "drop":
            raise RecipeError(
                "data.partial=drop: every factor would drop other examples of an epoch; use data.partial=carry"
            )
        self._check_adascale(recipe.learning_rate.scaling)
        window = self.window_of(recipe)
        if window.examples < window.largest:
            fitting = [f for f in window.factors if f * window.minibatch <= window.examples]
            way = f"leave out factors above {fitting[-1]}, or give" if fitting else "give"
            raise UsageError(
                f"--window={window.examples}: factor {window.factors[-1]} is a minibatch of {window.largest} examples, "
                f"more than the window; {way} a window of at least {window.largest}, better "
                f"{usual_window(window.largest)}"
            )
        if window.examples % window.largest:
            below = window.examples - window.examples % window.largest
            raise UsageError(
                f"--window={window.examples}: must be a multiple of the largest factor's minibatch, {window.largest}, "
                f"so that every branch ends with the same example; use {below} or {below + window.largest}"
            )
        if self.warmup > window.examples:
            raise UsageError(
                f"--warmup={self.warmup}: must not be longer than the window of {window.examples} examples; give less"
            )

    def _check_adascale(self, trunk_rule: str) -> None:
        """Raise where branches would go on from measured gains by another rule, or begin to measure them."""
        others = [rule for rule in self.rules or () if (rule == "adascale") != (trunk_rule == "adascale")]
        if others:
            raise UsageError(
                f"--rules: {others[0]}, and the trunk has learning_rate.scaling={trunk_rule}: adascale goes on from "
                f"steps that were measured, and nothing goes on from adascale's; leave {others[0]} out, or train the "
                f"trunk by it (learning_rate.scaling={others[0]})"
            )

    def check_run(self, trained: Recipe, recipe: Recipe) -> None:
        """Raise where a run that is there cannot be the trunk.

        Args:
            trained: the run's recipe.
            recipe: with the command's overrides.

        Raises:
            UsageError: one line.
        """
        if self.lr_sweep is not None:
            raise UsageError(
                "--lr-sweep: the trunk is trained already; give its recipe in place of the run, or leave --lr-sweep out"
            )
        entries, others = identity(trained), identity(recipe)
        for name in sorted(entries.keys() | others.keys()):
            if entries.get(name) != others.get(name):
                raise RecipeError(
                    f"{name}={others.get(name)}: the trunk was trained with {entries.get(name)}; leave it out, or give "
                    f"a recipe in place of the run"
                )
        if recipe.numerics.exact and not trained.numerics.exact:
            raise RecipeError(
                "numerics.exact=true: the run was trained in fast mode, so its state is not the same for every number "
                "of processes; leave it out, or give a run that was trained with numerics.exact=true"
            )

    def window_of(self, recipe: Recipe) -> Window:
        """The window of all branches."""
        factors = tuple(sorted({1, *self.factors}))
        kn = minibatch_of(recipe)
        return Window(kn, factors, self.window or usual_window(factors[-1] * kn))

    def rules_of(self, recipe: Recipe) -> tuple[str, ...]:
        """The rules, by name."""
        return self.rules or (recipe.learning_rate.scaling,)

    @property
    def branch_seeds(self) -> range:
        """Of the branches; 0 would be the trunk's own order."""
        return range(1, self.seeds + 1)

    def further(self, case: Case[Any], outcomes: Sequence[Outcome]) -> list[Cell]:
        """The branches once the trunk has ended, then those that go on to the loss of factor 1.

        Args:
            case: of this question.
            outcomes: so far.
        """
        from batchscale.study.branch.cells import following

        return following(case, outcomes)


def cells(case: Case[Question]) -> list[Cell]:
    """The trunk, at each lr of the sweep; of a run that is there its branches at once.

    Raises:
        UsageError: one line, of the branches, too.
    """
    from batchscale.study.branch.cells import first_cells

    return first_cells(case)
