"""What does not fit, and what is derived, is told in the task's own words."""

import pytest

from batchscale.build.derive import derived_numbers
from batchscale.build.examples import examples_of, told_of_examples
from batchscale.build.planning import plan_of, recompute_examples
from batchscale.errors import DataError, RecipeError
from batchscale.members import TASKS
from batchscale.recipe import load_recipe
from batchscale.words import of_examples


def sentence(error, function, *arguments):
    with pytest.raises(error) as caught:
        function(*arguments)
    return str(caught.value)


@pytest.mark.parametrize(("recipe", "noun"), [("topics-transformer", "sequences"), ("digits-cnn", "images")])
def test_what_does_not_fit_is_told_of_the_task_s_examples(recipe, noun):
    content = load_recipe(recipe, ["minibatch.workers=4", "minibatch.per_worker=8"])
    assert f"x minibatch.per_worker=8 = 32 {noun}: must not exceed the 31 training {noun}; lower" in sentence(
        RecipeError, plan_of, content, 31
    )
    growing = load_recipe(
        recipe, ["minibatch.workers=4", "minibatch.per_worker=8", "epochs=4",
                 "minibatch.growth={kind: phases, phases: [{epoch: 1, workers: 8}]}"],
    )  # fmt: skip
    assert f"64 {noun} from epoch 1 on: must not exceed the 63 training {noun}" in sentence(
        RecipeError, plan_of, growing, 63
    )
    few = load_recipe(recipe, ["batch_norm={running: recomputed, recompute_examples: 4}"])
    assert f"and the 100 training {noun}; use 8" in sentence(RecipeError, recompute_examples, few, 100, 8)


@pytest.mark.parametrize(("recipe", "noun"), [("topics-transformer", "sequences"), ("digits-cnn", "images")])
def test_derived_numbers_are_of_the_task_s_examples(recipe, noun):
    content = load_recipe(recipe, ["minibatch.workers=4", "minibatch.per_worker=8"])
    rows = {row.name: row for row in derived_numbers(content, 64, 1)}
    assert rows["minibatch"].value == f"32 {noun}"
    assert rows[f"training {noun}"].formula == "N, after data.holdout and data.train_images"  # an entry stays its name
    assert derived_numbers(content, 64, 1, examples="points")[1].name == "training points"


def test_a_builder_of_a_task_that_names_no_examples_has_examples(monkeypatch):
    monkeypatch.setitem(TASKS._homes, "plain", lambda classes, label_smoothing=0.0: None)
    assert examples_of(load_recipe("digits-cnn", ["task=plain"])) == "examples"


def test_kinds_of_errors_and_entries_stay():
    recipe = load_recipe("topics-transformer")
    with pytest.raises(DataError, match=r"data\.train_images=9: the 8 sequences"), told_of_examples(recipe):
        raise DataError("data.train_images=9: the 8 images")
    assert of_examples("Image 3 of images_per_second", "sequences") == "Sequence 3 of images_per_second"
