"""Questions of studies put to digits-cnn, whose training images are counted without its data."""

from batchscale.recipe import load_recipe
from batchscale.study.question import Case
from batchscale.study.studies import question_of

IMAGES = 1437


def case_of(kind, *, overrides=(), images=IMAGES, **fields):
    """A question of a kind of study, put to digits-cnn.

    Args:
        kind: of study.
        overrides: of the recipe.
        images: of the training set.
        fields: of the question.
    """
    question = question_of(kind)(**fields)
    recipe = load_recipe("digits-cnn", overrides)
    question.check(recipe)
    recipe = question.starting_recipe(recipe, lambda recipe: images)
    return Case(question, "digits-cnn", tuple(overrides), recipe, lambda recipe: images)
