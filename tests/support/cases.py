"""Questions of studies put to digits-cnn, whose training images are counted without its data."""

from batchscale.recipe import load_recipe
from batchscale.study.question import Case
from batchscale.study.studies import question_of

IMAGES = 1437


def case_of(kind, *, recipe="digits-cnn", overrides=(), images=IMAGES, **fields):
    """A question of a kind of study, put to a recipe.

    Args:
        kind: of study.
        recipe: its name.
        overrides: of the recipe.
        images: of the training set.
        fields: of the question.
    """
    question = question_of(kind)(**fields)
    entries = load_recipe(recipe, overrides)
    question.check(entries)
    entries = question.starting_recipe(entries, lambda _: images)
    return Case(question, recipe, tuple(overrides), entries, lambda _: images)
