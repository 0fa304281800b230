"""What a run's task calls its examples, in what is said of steps, minibatches and parts of the data."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from batchscale.errors import DataError, RecipeError
from batchscale.members import TASKS
from batchscale.recipe.schema import Recipe
from batchscale.words import of_examples


def examples_of(recipe: Recipe) -> str:
    """Several of them: "images", "sequences"; "examples" of a builder that does not say. Imports the task."""
    return getattr(TASKS.named(recipe.task, "task"), "examples", "examples")


@contextmanager
def told_of_examples(recipe: Recipe) -> Iterator[None]:
    """Within it an error that speaks of images speaks of the task's examples."""
    try:
        yield
    except (RecipeError, DataError) as error:
        raise type(error)(of_examples(str(error), examples_of(recipe))) from None
