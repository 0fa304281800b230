"""What a study asks: fields with range and words. Its flags, its study.json and its cells come from them.

A field's flag is ``--`` and its name. Never imports torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from pydantic import ConfigDict

from batchscale.asking import flag as flag
from batchscale.asking import flag_name as flag_name
from batchscale.asking import read_by as read_by
from batchscale.recipe import Recipe
from batchscale.recipe.base import Entry

if TYPE_CHECKING:
    from batchscale.study.runner.cell import Cell, Outcome


class StudyQuestion(Entry):
    """A question of any study.

    A field that is written otherwise than as a number or a name has a type that reads words (``read_by``), so that its
    default may be words, too.

    Attributes:
        summary: of the study, for the list of studies.
        about: what it trains and tells, with an example.
        of_recipe: the recipe that it is always asked of, and
        of_overrides: that recipe's overrides; None: any recipe.
        of_runs: it may be asked of a run's folder in place of a recipe.
    """

    model_config = ConfigDict(validate_default=True)

    summary: ClassVar[str]
    about: ClassVar[str]
    of_recipe: ClassVar[str | None] = None
    of_overrides: ClassVar[tuple[str, ...]] = ()
    of_runs: ClassVar[bool] = False

    def check(self, recipe: Recipe) -> None:
        """Raise where the question is none of this recipe, whatever the data.

        Raises:
            UsageError: one line.
        """

    def check_run(self, trained: Recipe, recipe: Recipe) -> None:
        """Raise where the question is none of a run that is there.

        Args:
            trained: the run's recipe.
            recipe: with the command's overrides.

        Raises:
            UsageError: one line.
        """

    @property
    def own_recipe(self) -> tuple[str, tuple[str, ...]] | None:
        """The recipe that it is asked of, with that recipe's overrides; None: any recipe."""
        return None if self.of_recipe is None else (self.of_recipe, self.of_overrides)

    def measures_time(self, recipe: Recipe) -> bool:
        """Whether its runs are timed, and so go one at a time."""
        return False

    def home(self, recipe: Recipe) -> str | None:
        """The package with the cells and the answer of this question; None: that of its kind of study."""
        return None

    def starting_recipe(self, recipe: Recipe, count_images: Callable[[Recipe], int]) -> Recipe:
        """The recipe that the runs start from: most studies take it as it is.

        Args:
            recipe: as asked.
            count_images: recipe -> its training images; takes the time of opening the data.

        Raises:
            UsageError: one line.
        """
        return recipe

    def foreword(self, runs: int, jobs: int) -> str | None:
        """What is said before the runs begin; None: nothing.

        Args:
            runs: that have not ended, at least one.
            jobs: runs at once.
        """
        return None

    def further(self, case: Case[Any], outcomes: Sequence[Outcome]) -> Sequence[Cell]:
        """The runs that follow from what came out of those before; none where the study is over.

        Args:
            case: of this question.
            outcomes: so far.

        Raises:
            UsageError: one line.
        """
        return ()

    def after_runs(self, case: Case[Any], outcomes: Sequence[Outcome]) -> None:
        """What is done with runs that have ended, before they are judged; most studies do nothing.

        Raises:
            UsageError: one line.
        """

    def check_begun(self, case: Case[Any], cells: Sequence[Cell], runs: Path) -> None:
        """Raise where runs that are there cannot answer this question.

        Args:
            case: of this question.
            cells: asked for.
            runs: the folder of the runs' folders.

        Raises:
            UsageError: one line.
        """


Asking = TypeVar("Asking", bound=StudyQuestion)


@dataclass(frozen=True)
class Case(Generic[Asking]):
    """A question put to a recipe and its data.

    Args:
        question: of a study.
        source: a shipped recipe's name, or a YAML file.
        overrides: of all runs.
        recipe: that the runs start from; its seed is the first.
        count_images: recipe -> its training images, N; called when a study needs them.
        task_cores: of each process, where a cluster gives them; None: the processes share this machine's.
        data_folder: of the data sets; None for the environment's.
        run: the folder of the run that it is asked of; None: of a recipe.
    """

    question: Asking
    source: str
    overrides: tuple[str, ...]
    recipe: Recipe
    count_images: Callable[[Recipe], int]
    task_cores: int | None = None
    data_folder: Path | None = None
    run: Path | None = None

    @property
    def recipe_name(self) -> str:
        """For the records."""
        return Path(self.source).stem

    @cached_property
    def training_images(self) -> int:
        """N."""
        return self.count_images(self.recipe)


class SeededQuestion(StudyQuestion):
    """A question whose cells are each trained with several seeds: the recipe's, and the next ones."""

    seeds: int = flag("of each", "S", default=3, ge=1)

    def seeded(self, recipe: Recipe) -> Iterator[tuple[int, Recipe]]:
        """(seed, the recipe with it) of every seed."""
        for seed in range(recipe.seed, recipe.seed + self.seeds):
            yield seed, recipe.model_copy(update={"seed": seed})

    @property
    def seeds_words(self) -> str:
        """How many, as in a sentence."""
        return f"{self.seeds} seeds" if self.seeds > 1 else "one seed"
