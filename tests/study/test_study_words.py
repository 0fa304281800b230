"""A study of another task says nothing of images: its examples have the task's word, its documents the same keys."""

import pytest

from batchscale.hyperbola import Interval
from batchscale.recipe import load_recipe
from batchscale.records.findings import Axis, Figure, Findings, Series, Table
from batchscale.study.examples import in_words_of, parts_of, with_parts

FOUND = Findings(
    kind="scaling", title="Of images", recipe="image-net", asked="100 training images, one image a worker.",
    answer="B_crit = 40 images", command=("batchscale", "images"),
    rows=({"images_per_second": 1.0, "folder": "images"},),
    figures=(
        Figure(id="images", title="Images", caption="", x=Axis(label="minibatch kn (images)"), y=Axis(label="y"),
               series=(Series(name="twice the images", x=(1,), y=(1.0,), runs=("runs/images",)),)),
    ),
    tables=(Table(title="t", columns=("images/s",), rows=(("images",),), caption="a matter of few images"),),
    warnings=("one worker of kn images",), result={"images": 3},
)  # fmt: skip


def test_images_stay_images():
    assert in_words_of(FOUND, "images") is FOUND


@pytest.mark.parametrize("word", ["sequences", "examples"])
def test_another_task_has_its_own_word(word):
    spoken = in_words_of(FOUND, word)
    assert spoken.asked == f"100 training {word}, one {word[:-1]} a worker."
    assert spoken.answer == f"B_crit = 40 {word}"
    (figure,), (table,) = spoken.figures, spoken.tables
    assert (spoken.title, figure.title) == (f"Of {word}", word.capitalize())
    assert (figure.x.label, figure.series[0].name) == (f"minibatch kn ({word})", f"twice the {word}")
    assert (table.columns, table.caption) == ((f"{word}/s",), f"a matter of few {word}")
    assert spoken.warnings == (f"one worker of kn {word}",)
    for kept in ("rows", "result", "command", "recipe"):  # keys, folders and names are no words
        assert getattr(spoken, kept) == getattr(FOUND, kept)
    assert (figure.id, figure.series[0].runs, table.rows) == ("images", ("runs/images",), (("images",),))


def test_the_tokens_of_a_minibatch_stand_beside_its_sequences():
    recipe = load_recipe("topics-transformer", ["data.sequence=32"])
    assert parts_of(recipe) == ("tokens", 32)
    table = Table(title="t", columns=("rule", "kn", "steps"), rows=(("a", 4, 9), ("b", 8, 5)))
    (counted, other) = with_parts(FOUND.model_copy(update={"tables": (table, *FOUND.tables)}), recipe).tables
    assert counted.columns == ("rule", "kn", "tokens a minibatch", "steps")
    assert counted.rows == (("a", 4, 128, 9), ("b", 8, 256, 5))
    assert other == FOUND.tables[0]
    assert with_parts(FOUND, load_recipe("digits-cnn")) is FOUND
    assert Interval(40.0, None, 80.0).times(32) == Interval(1280.0, None, 2560.0)
